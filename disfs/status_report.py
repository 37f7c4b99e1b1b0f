"""A daemon's status for people, a line for each thing that one wants to know. `status --json` has everything. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disfs.quantities import Bandwidth, human_count, human_duration, human_rate, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME_WIDTH = 9


def status_lines(report: Mapping[str, Any]) -> list[str]:
    """What the daemon said of itself (`Controlled.status`), in the order in which one asks."""
    rows = [
        ("volume", f"{report['volume']}, {report['state']} at {report['mountpoint']}, process {report['pid']}"),
        ("holds", _holds(report["metadata"])),
        ("uploads", uploads(report)),
        ("cache", _cache(report)),
        ("pinned", _pinned(report)),
        ("reads", _reads(report)),
        ("requests", _requests(report)),
        ("names", _names(report["journal"])),
        ("trash", _trash(report["metadata"])),
        ("garbage", _garbage(report)),
        *(("warming", _warmup(warmup)) for warmup in report["warmups"]),
        *(("problem", text) for text in problems(report)),
    ]
    return [f"{name:<{_NAME_WIDTH}} {text}" for name, text in rows if text]


def _holds(metadata: Mapping[str, Any]) -> str:
    """Sizes, and what counts of them against the volume's size; they differ where there are holes."""
    taken = f"{human_size(metadata['allocated_bytes'])} of at most {human_size(metadata['capacity_bytes'])}"
    inodes = human_count(metadata["inode_count"], "inode")
    return f"{human_size(metadata['logical_bytes'])} in {inodes}, taking {taken}"


def _trash(metadata: Mapping[str, Any]) -> str:
    """What can be restored."""
    if not metadata["trash_count"]:
        return ""
    things = human_count(metadata["trash_count"], "file or directory", "files and directories")
    return f"{things}, {human_size(metadata['trash_bytes'])}; 'disfs undelete --list' shows them"


def uploads(report: Mapping[str, Any]) -> str:
    """What uploading does, and how long it will take."""
    writeback = report["writeback"]
    if report["uploads"] == "idle":
        return f"everything is in Discord; {human_size(writeback['sent_bytes'])} sent since it was mounted"
    unsent = f"{human_size(report['dirty_bytes'])} to send"
    waiting = writeback["waiting_writers"]
    if waiting:
        unsent += f", {human_count(waiting, 'program')} waiting to write more"
    match report["uploads"]:
        case "paused":
            return f"paused: 'disfs resume' goes on; {unsent}"
        case "refused":
            return f"stopped: every channel refuses, see below; {unsent}, kept on this machine"
        case "retrying":
            return f"held up, see below; {unsent}"
        case "rate_limited":
            return f"{unsent}, waiting for Discord's rate limit"
        case "sending":
            return f"{unsent}, {_on_its_way(report)}"
        case _:
            return f"{unsent}, a moment after they were last written"


def _on_its_way(report: Mapping[str, Any]) -> str:
    writeback = report["writeback"]
    text = f"{human_count(len(writeback['in_flight']), 'message')} on the way"
    rate = writeback["bytes_per_second"]
    if not rate:
        return text
    # What was measured before a limit was set says nothing about what is to come.
    rate = min(rate, report["bandwidth"]["up_bytes_per_second"] or rate)
    return f"{text} at {human_rate(rate)}, about {human_duration(report['dirty_bytes'] / rate)} left"


def _cache(report: Mapping[str, Any]) -> str:
    used = f"{human_size(report['cache_bytes'])} of at most {human_size(report['cache_limit_bytes'])}"
    unsent = f"{human_size(report['dirty_bytes'])} of it not sent yet"
    return f"{used}, {unsent} (at most {human_size(report['dirty_limit_bytes'])})"


def _pinned(report: Mapping[str, Any]) -> str:
    if not report["pinned_inodes"]:
        return ""
    size = f"{human_size(report['pinned_bytes'])} of at most {human_size(report['pinned_limit_bytes'])}"
    return f"{size}, {human_count(report['pinned_inodes'], 'file or directory', 'files and directories')}"


def _reads(report: Mapping[str, Any]) -> str:
    fetch, reads = report["fetch"], report["reads"]
    touched = reads["cached_chunks"] + reads["missed_chunks"]
    text = f"{human_size(report['transport']['fetched_bytes'])} fetched"
    if touched:
        text += f", {100 * reads['cached_chunks'] // touched} % of what was read was in the cache"
    if fetch["running"]:
        text += f"; {human_count(fetch['running'], 'fetch', 'fetches')} running, {fetch['queued']} queued"
    whole_count = report["transport"]["whole_downloads"]
    if whole_count:
        text += f"; the CDN sent a whole attachment where a part was asked for, {human_count(whole_count, 'time')}"
    return text


def _requests(report: Mapping[str, Any]) -> str:
    transport = report["transport"]
    text = f"{report['requests']}, {transport['retries']} repeated, {transport['rate_limited']} rate limited (429)"
    limit = Bandwidth(**report["bandwidth"])
    return text if limit == Bandwidth() else f"{text}; bandwidth limited to {limit}"


def _names(journal: Mapping[str, Any]) -> str:
    """What of names, attributes and the map of contents is in Discord too."""
    if journal["conflict"]:
        return "not sent to Discord any more, see below"
    age = journal["unshipped_seconds"]
    if age is not None:
        text = f"the oldest change that Discord does not have is {human_duration(age)} old"
    elif journal["sequence"]:
        text = "all in Discord"
    else:
        return "nothing to send yet"
    sent = f"{human_count(journal['journals'], 'journal')} and {journal['copies']} whole copies sent"
    return f"{text}; {sent} since it was mounted, {human_size(journal['sent_bytes'])}"


def _garbage(report: Mapping[str, Any]) -> str:
    sweep, compaction = report["sweep"], report["compaction"]
    text = f"{human_count(sweep['swept_messages'], 'message')} deleted, {sweep['waiting_messages']} waiting"
    if compaction["garbage_bytes"] or compaction["rewritten_messages"]:
        text += f"; {compaction['rewritten_messages']} rewritten, {human_size(compaction['garbage_bytes'])} to gain"
    return text


def _warmup(warmup: Mapping[str, Any]) -> str:
    sizes = f"{human_size(warmup['done_bytes'])} of {human_size(warmup['total_bytes'])}"
    return f"{sizes}, {warmup['done_files']} of {human_count(warmup['total_files'], 'file')}"


def problems(report: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, in sentences; nothing when all is well."""
    told = (
        report["warning"],
        report["transport"]["trouble"],
        *report["writeback"]["failures"],
        report["sweep"]["failure"],
        report["compaction"]["failure"],
        report["journal"]["failure"],
        report["journal"]["conflict"],
        report["lease"]["failure"],
        report["warmup_problem"],
    )
    yield from dict.fromkeys(text for text in told if text)
    if report["lease"]["takes_over"]:
        yield "the volume is to be taken over as soon as Discord answers"
    if report["lease"]["taken_from"]:
        host = report["lease"]["taken_from"]
        yield f"the volume was taken over from {host}: if it is still mounted there, what is written there is not sent"
    if report["journal"]["unreadable"]:
        yield (
            f"{human_count(report['journal']['unreadable'], 'attachment')} in the index channel cannot be read: "
            "damaged, not of this volume, or of a newer disfs"
        )
    if report["metadata"]["failure"]:
        yield (
            f"the volume's metadata have stopped ({report['metadata']['failure']}): everything fails; "
            "unmount with --no-wait and mount again, what was synced is intact"
        )
    if report["metadata"]["damage"]:
        yield (
            f"the volume's metadata are damaged ({report['metadata']['damage']}): what needs the damaged part fails; "
            "unmount, and put a backup of the state directory back, or put it aside and run 'disfs recover'"
        )
    if report["metadata"]["low_space"]:
        yield "the disk that holds the metadata is nearly full: nothing new is taken in; free some space on it"
    if report["metadata"]["allocated_bytes"] >= report["metadata"]["capacity_bytes"]:
        yield "the volume is full: delete something, or mount it with a larger --size"
    if report["lost_chunks"]:
        yield (
            f"{report['lost_chunks']} chunks were lost before they were sent: the log names the files; "
            "overwrite or delete them"
        )
    if report["sweep"]["newer_messages"]:
        count = human_count(report["sweep"]["newer_messages"], "message")
        yield f"{count} in Discord newer than this machine's state, and kept; was that put back from a backup?"
    if report["fetch"]["damaged_chunks"]:
        yield f"{report['fetch']['damaged_chunks']} chunks in Discord are gone or damaged; the log names the files"
