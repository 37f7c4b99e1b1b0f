"""A daemon's status as a screen of a given size: what it sends and fetches, file by file. Pure, but for rich's `Text`.

What matters most stands first, so that a small screen shows it; each line is cut to the width. Names come from people
and programs: what a terminal would obey is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from disfs.quantities import human_count, human_duration, human_rate, human_size
from disfs.status_report import problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LABEL_WIDTH = 9
WIDE = 60
"""From so many columns on there is room for bars, and for how fast each file goes and how long it will take."""
_PROBLEM_LINES = 3
"""How many lines one problem may take."""
_STATES = {
    "idle": ("everything is in Discord", "green"),
    "waiting": ("a moment after the last write", "default"),
    "sending": ("sending", "cyan"),
    "rate_limited": ("waits for Discord's rate limit", "yellow"),
    "retrying": ("held up, see below", "yellow"),
    "refused": ("stopped: every channel refuses", "red"),
    "paused": ("paused: 'disfs resume' goes on", "yellow"),
}


@dataclass(frozen=True, slots=True)
class Canvas:
    """What there is to draw on."""

    width: int
    height: int
    ascii_only: bool = False

    def bar(self, share: float, width: int) -> str:
        """A bar of that many columns, filled up to `share`."""
        full, empty = ("#", "-") if self.ascii_only else ("█", "░")
        filled = round(max(0.0, min(1.0, share)) * width)
        return full * filled + empty * (width - filled)

    def short(self, path: str, width: int) -> str:
        """A path in so many columns: its end, where it is too long."""
        shown = "".join(char if char.isprintable() else "?" for char in path)
        if cell_len(shown) <= width:
            return shown
        dots = "..." if self.ascii_only else "…"
        # The last columns are what tells files apart; a wide character is not cut in two.
        while shown and cell_len(shown) > width - cell_len(dots):
            shown = shown[1:]
        return dots + shown


@dataclass(frozen=True, slots=True)
class Motion:
    """What one report alone does not tell."""

    down_bytes_per_second: float = 0.0
    most_bytes: int = 0
    """The most that was unsent since everything was sent last: what the bar is a share of."""

    def after(self, before: Mapping[str, Any] | None, report: Mapping[str, Any], seconds: float) -> Motion:
        """The next one, by two reports that lie so far apart."""
        unsent = report["dirty_bytes"]
        if before is None or seconds <= 0:
            return Motion(0.0, unsent)
        fetched = report["fetch"]["fetched_bytes"] - before["fetch"]["fetched_bytes"]
        return Motion(max(0.0, fetched / seconds), max(self.most_bytes, unsent) if unsent else 0)


def screen(report: Mapping[str, Any], motion: Motion, canvas: Canvas) -> Text:
    """Everything, in no more lines than there are, none wider than the screen."""
    head = [*_head(report, motion, canvas)]
    room = max(0, canvas.height - len(head) - 1)
    trouble = [*_trouble(report, canvas)][: max(1, room // 2)]
    files = [*_files(report, canvas, max(0, canvas.height - len(head) - len(trouble)))]
    lines = [*head, *trouble, *files][: canvas.height]
    for line in lines:
        line.truncate(canvas.width)
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _head(report: Mapping[str, Any], motion: Motion, canvas: Canvas) -> Iterator[Text]:
    volume = str(report["volume"])
    where = canvas.short(str(report["mountpoint"]), max(8, canvas.width - cell_len(volume) - 4))
    state = "" if report["state"] == "mounted" else f"  {report['state']}"
    yield Text.assemble((volume, "bold"), " at ", where, (state, "yellow"))
    words, style = _STATES.get(report["uploads"], (str(report["uploads"]), "default"))
    yield _row("uploads", (words, style))
    unsent = report["dirty_bytes"]
    if unsent:
        bar = canvas.bar(1 - unsent / max(1, motion.most_bytes), 20) + " " if canvas.width >= WIDE else ""
        yield _row("to send", (bar, "cyan"), f"{human_size(unsent)}{_speed_and_rest(report)}")
    oldest = _oldest_seconds(report)
    if oldest is not None:
        yield _row("oldest", f"unsent change is {human_duration(oldest)} old")
    fetch = report["fetch"]
    if fetch["running"] or fetch["queued"]:
        queue = f", {human_count(fetch['running'], 'fetch', 'fetches')}, {fetch['queued']} queued"
        yield _row("fetching", human_rate(motion.down_bytes_per_second), queue)
    share = report["cache_bytes"] / max(1, report["cache_limit_bytes"])
    sizes = f"{human_size(report['cache_bytes'])} of {human_size(report['cache_limit_bytes'])}"
    yield _row("cache", (canvas.bar(share, 10), "blue"), f" {sizes}")
    yield _row("channels", *_channels(report["writeback"]["channels"]))
    limits = report["bandwidth"]
    if any(limits.values()):
        up, down = (limits[f"{way}_bytes_per_second"] for way in ("up", "down"))
        texts = (human_rate(limit) if limit else "no limit" for limit in (up, down))
        yield _row("limit", "up {}, down {}".format(*texts))


def _row(name: str, *parts: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{name:<{LABEL_WIDTH}}", "dim"), *parts)


def upload_rate(report: Mapping[str, Any]) -> float | None:
    """How fast uploads are: what the messages on their way say, else what they were lately; None before the first."""
    rate: float | None = sum(m["bytes_per_second"] or 0.0 for m in report["transfers"]["messages"])
    rate = rate or report["writeback"]["bytes_per_second"]
    limit = report["bandwidth"]["up_bytes_per_second"]
    return min(rate, limit) if rate and limit else rate


def _speed_and_rest(report: Mapping[str, Any]) -> str:
    rate = upload_rate(report)
    if not rate or report["uploads"] not in {"sending", "rate_limited"}:
        return ""
    # How long it takes goes by what uploads were lately: what one moment says jumps about.
    lately = report["writeback"]["bytes_per_second"] or rate
    return f", {human_rate(rate)}, {human_duration(report['dirty_bytes'] / min(lately, rate * 4))}"


def _oldest_seconds(report: Mapping[str, Any]) -> float | None:
    ages = (report["transfers"]["oldest_unsent_seconds"], report["journal"]["unshipped_seconds"])
    return max((age for age in ages if age is not None), default=None)


def _channels(channels: Sequence[Mapping[str, Any]]) -> Iterator[str | tuple[str, str]]:
    """How many there are, and how many of them take something now."""
    refusing = sum(channel["failure"] is not None for channel in channels)
    waiting = [channel["delay_seconds"] for channel in channels if channel["delay_seconds"] > 0]
    busy = sum(channel["in_flight"] > 0 for channel in channels)
    yield f"{len(channels)}, {busy} busy"
    if waiting:
        yield (f", {len(waiting)} at the limit for {max(1, round(min(waiting)))} s", "yellow")
    if refusing:
        yield (f", {refusing} refusing", "red")


def _trouble(report: Mapping[str, Any], canvas: Canvas) -> Iterator[Text]:
    for text in problems(report):
        shown = "".join(char if char.isprintable() else "?" for char in text)
        lines = _wrapped(shown, canvas.width - 2)
        for number, line in enumerate(lines[:_PROBLEM_LINES]):
            yield Text.assemble(("  " if number else "! ", "bold red"), (line, "red"))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        for piece in chop_cells(word, max(1, width)):
            joined = f"{lines[-1]} {piece}".strip()
            if cell_len(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(piece)
    return lines


def _files(report: Mapping[str, Any], canvas: Canvas, room: int) -> Iterator[Text]:
    transfers = report["transfers"]
    count, files = transfers["unsent_files"], transfers["files"]
    if not files or room < 2:
        return
    yield Text("")
    room -= 1
    shown = files if len(files) == count and len(files) <= room else files[: room - 1]
    for file in shown:
        yield _file(file, canvas)
    if count > len(shown):
        yield Text(f"and {human_count(count - len(shown), 'file')} more", style="dim")


def _file(file: Mapping[str, Any], canvas: Canvas) -> Text:
    """How far, how fast, of how much, and which."""
    total, sent = file["total_bytes"], file["sent_bytes"]
    # All of it taken is not yet all of it in Discord.
    share = min(99, int(100 * sent / total)) if total else 0
    progress = f"{share:>3} %" if file["sending"] or sent else "waits"
    rate = file["bytes_per_second"]
    columns = [(f"{progress:<5}", "cyan" if file["sending"] else "dim"), (f" {human_size(total):>10}", "default")]
    if canvas.width >= WIDE:
        columns.append((f" {human_rate(rate) if rate else '':>12}", "default"))
        left = human_duration((total - sent) / rate) if rate else ""
        columns.append((f" {left:>8}", "default"))
    text = Text.assemble(*columns, " ")
    return text.append(canvas.short(file["path"], max(4, canvas.width - cell_len(text.plain))))


def padded(text: Text, canvas: Canvas) -> list[str]:
    """The lines of a screen without styles, each as wide as it; for pictures and tests."""
    lines = text.plain.split("\n")
    return [set_cell_size(line, canvas.width) for line in lines]
