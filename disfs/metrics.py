"""A daemon's status in the text format that Prometheus scrapes. Pure. Names and labels are an interface.

`docs/metrics.md` lists them; a metric is never renamed, and its meaning never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.status_report import problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

UPLOAD_STATES = ("idle", "waiting", "sending", "rate_limited", "retrying", "refused", "paused")


@dataclass(frozen=True, slots=True)
class Metric:
    """One of them."""

    name: str
    kind: str
    """`counter` or `gauge`."""
    meaning: str
    samples: Callable[[Mapping[str, Any]], Iterable[tuple[Mapping[str, str], float]]]
    """Label values and a number each, from what the daemon said of itself."""
    labels: tuple[str, ...] = ()
    """Besides `volume`."""


def _at(*path: str) -> Callable[[Mapping[str, Any]], Iterable[tuple[Mapping[str, str], float]]]:
    """One number at that place in the report; none where there is null."""

    def samples(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
        found: Any = report
        for key in path:
            found = found[key]
        return () if found is None else (({}, found),)

    return samples


def _channels(key: str) -> Callable[[Mapping[str, Any]], Iterable[tuple[Mapping[str, str], float]]]:
    """A number of each channel; whether there is one, of what is a text."""

    def samples(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
        for channel in report["writeback"]["channels"]:
            value = channel[key]
            yield {"channel": str(channel["channel"])}, value if isinstance(value, int | float) else value is not None

    return samples


def _states(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
    return (({"state": state}, report["uploads"] == state) for state in UPLOAD_STATES)


def _kernel(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
    return (({"operation": name}, count) for name, count in sorted(report["kernel_requests"].items()))


def _scopes(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
    return (({"scope": scope}, report["transport"][f"rate_limited_{scope}"]) for scope in ("user", "shared", "global"))


def _damage(report: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, str], float]]:
    return (({}, bool(report["metadata"]["damage"] or report["metadata"]["failure"])),)


METRICS = (
    Metric("disfs_uptime_seconds", "gauge", "since the daemon started", _at("uptime_seconds")),
    Metric("disfs_problems", "gauge", "how many problems `disfs status` names", lambda r: (({}, len([*problems(r)])),)),
    Metric("disfs_upload_state", "gauge", "1 for what uploading does now, 0 for the other states", _states, ("state",)),
    Metric("disfs_dirty_bytes", "gauge", "contents that are not in Discord yet", _at("dirty_bytes")),
    Metric(
        "disfs_dirty_limit_bytes",
        "gauge",
        "the most that may be dirty; above it writers wait",
        _at("dirty_limit_bytes"),
    ),
    Metric(
        "disfs_unsent_files", "gauge", "files of which something is not in Discord", _at("transfers", "unsent_files")
    ),
    Metric(
        "disfs_oldest_unsent_seconds",
        "gauge",
        "how old the oldest unsent change of contents is; absent when there is none",
        _at("transfers", "oldest_unsent_seconds"),
    ),
    Metric(
        "disfs_oldest_unshipped_seconds",
        "gauge",
        "how old the oldest change of names and attributes is that Discord does not have; absent when there is none",
        _at("journal", "unshipped_seconds"),
    ),
    Metric("disfs_waiting_writers", "gauge", "writes that wait for room", _at("writeback", "waiting_writers")),
    Metric(
        "disfs_sent_bytes_total", "counter", "sealed contents that Discord acknowledged", _at("writeback", "sent_bytes")
    ),
    Metric("disfs_sent_messages_total", "counter", "messages with contents", _at("writeback", "sent_messages")),
    Metric(
        "disfs_upload_bytes_per_second",
        "gauge",
        "how fast uploads were lately; absent before the first",
        _at("writeback", "bytes_per_second"),
    ),
    Metric(
        "disfs_fetched_bytes_total", "counter", "fetched from Discord, as stored there", _at("fetch", "fetched_bytes")
    ),
    Metric("disfs_fetches_running", "gauge", "requests for contents under way", _at("fetch", "running")),
    Metric("disfs_fetches_queued", "gauge", "chunks that wait for a request", _at("fetch", "queued")),
    Metric("disfs_cached_chunks_read_total", "counter", "chunks read from the cache", _at("reads", "cached_chunks")),
    Metric(
        "disfs_missed_chunks_read_total",
        "counter",
        "chunks that were not in the cache when somebody read them",
        _at("reads", "missed_chunks"),
    ),
    Metric("disfs_cache_bytes", "gauge", "what is cached", _at("cache_bytes")),
    Metric("disfs_cache_limit_bytes", "gauge", "the most that may be", _at("cache_limit_bytes")),
    Metric("disfs_pinned_bytes", "gauge", "what pinned files take of the cache", _at("pinned_bytes")),
    Metric("disfs_evicted_chunks_total", "counter", "chunks that had to leave the cache", _at("evicted_chunks")),
    Metric(
        "disfs_damaged_chunks_total",
        "counter",
        "reads of chunks whose copy in Discord is gone or damaged",
        _at("fetch", "damaged_chunks"),
    ),
    Metric("disfs_lost_chunks", "gauge", "unsent chunks that are gone from the cache", _at("lost_chunks")),
    Metric("disfs_metadata_damaged", "gauge", "1 when the metadata are damaged or have stopped", _damage),
    Metric("disfs_requests_total", "counter", "requests to Discord", _at("requests")),
    Metric("disfs_request_retries_total", "counter", "of these, repeated", _at("transport", "retries")),
    Metric("disfs_rate_limited_total", "counter", "answers of 429, by their scope", _scopes, ("scope",)),
    Metric("disfs_channel_in_flight", "gauge", "messages on their way", _channels("in_flight"), ("channel",)),
    Metric(
        "disfs_channel_delay_seconds",
        "gauge",
        "when Discord's limit allows the next message",
        _channels("delay_seconds"),
        ("channel",),
    ),
    Metric("disfs_channel_failing", "gauge", "1 while it takes no data", _channels("failure"), ("channel",)),
    Metric("disfs_lease_held", "gauge", "1 while this mount has the volume's lease", _at("lease", "held")),
    Metric("disfs_inodes", "gauge", "files, directories and all else", _at("metadata", "inode_count")),
    Metric("disfs_allocated_bytes", "gauge", "what files take, holes left out", _at("metadata", "allocated_bytes")),
    Metric("disfs_capacity_bytes", "gauge", "the most that files may take", _at("metadata", "capacity_bytes")),
    Metric("disfs_trash_bytes", "gauge", "what can be restored", _at("metadata", "trash_bytes")),
    Metric("disfs_garbage_bytes", "gauge", "in Discord, to be gained by rewriting", _at("compaction", "garbage_bytes")),
    Metric("disfs_open_handles", "gauge", "open files", _at("open_handles")),
    Metric("disfs_kernel_requests_total", "counter", "requests of the kernel", _kernel, ("operation",)),
)


def metrics_text(report: Mapping[str, Any]) -> str:
    """What the daemon said of itself (`Controlled.status`), as the text format, version 0.0.4."""
    lines = []
    for metric in METRICS:
        lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples(report):
            named = ",".join(
                f'{name}="{_escaped(text)}"' for name, text in {"volume": str(report["volume"]), **labels}.items()
            )
            lines.append(f"{metric.name}{{{named}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
