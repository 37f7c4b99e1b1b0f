"""The figures for Prometheus, as its own parser reads them, and as docs/metrics.md lists them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from support.controls_world import controls, write
from trio.testing import MockClock

from disfs.errors import FilesystemError
from disfs.metrics import METRICS, metrics_text
from disfs.report_files import report_text
from disfs.values import REPORT_NAMES, REPORTS_INODE, ROOT_INODE, InodeNumber

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def ask(directory: Path) -> dict[str, Any]:
    """What a volume with two files to send says; its kernel has asked for something."""

    async def asked() -> dict[str, Any]:
        async with controls(directory) as (made, world, _):
            made.pause()
            await write(world, b"a", b"x" * 1000)
            await write(world, b"b", b"x" * 500)
            return dict(made.status())

    return {**trio.run(asked, clock=MockClock(autojump_threshold=0)), "kernel_requests": {"lookup": 3, "read": 4}}


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, by its name and its labels but `volume`."""
    return {
        (sample.name, frozenset(item for item in sample.labels.items() if item[0] != "volume")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_the_daemon_says(tmp_path: Path) -> None:
    """The text is what Prometheus parses: figures with their labels, each metric once, with its type; what is not known
    is left out."""
    report = ask(tmp_path)
    text = metrics_text(report)
    found = parsed(text)
    assert 1500 == found["disfs_dirty_bytes", frozenset()]
    assert 2 == found["disfs_unsent_files", frozenset()]
    assert 4 == found["disfs_kernel_requests_total", frozenset({("operation", "read")})]
    states = {state: found["disfs_upload_state", frozenset({("state", state)})] for state in ("paused", "idle")}
    assert {"paused": 1, "idle": 0} == states
    assert 2 == sum(name == "disfs_channel_failing" for name, _ in found)
    assert ("disfs_upload_bytes_per_second", frozenset()) not in found
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert families == {metric.name.removesuffix("_total"): metric.kind for metric in METRICS}
    assert {"photos"} == {s.labels["volume"] for f in text_string_to_metric_families(text) for s in f.samples}


def test_label_values_are_quoted(tmp_path: Path) -> None:
    """A name with quotes, line ends and backslashes comes back as it was."""
    report = {**ask(tmp_path), "volume": 'a"b\\c\nd'}
    families = text_string_to_metric_families(metrics_text(report))
    assert {'a"b\\c\nd'} == {sample.labels["volume"] for family in families for sample in family.samples}


def test_page_lists_every_metric() -> None:
    """docs/metrics.md has each metric with its type, labels and meaning, and no other."""
    rows = re.findall(r"^\| `(disfs_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    listed = [(m.name, m.kind, ", ".join(f"`{label}`" for label in m.labels), m.meaning) for m in METRICS]
    assert listed == rows


def test_reports_are_bytes_whatever_paths_hold(tmp_path: Path) -> None:
    """Each file below .disfs can be made, also when a path is no text."""
    report = ask(tmp_path)
    report["transfers"]["files"][0]["path"] = "/\udcff"
    report["writeback"]["failures"] = ("\udcfe",)
    for number, name in enumerate(REPORT_NAMES):
        text = report_text(InodeNumber(REPORTS_INODE + 1 + number), report)
        assert text.endswith(b"\n"), name


async def test_volume_with_such_a_name_of_its_own_keeps_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file called .disfs from before there were reports is what the name stands for; else it stands for the reports,
    and nothing can be made in their place."""
    async with controls(tmp_path) as (_made, world, _limits):
        found = await world.filesystem.lookup(ROOT_INODE, b".disfs")
        assert found is not None
        assert REPORTS_INODE == found.inode
        with pytest.raises(FilesystemError):
            await write(world, b".disfs", b"mine")
        with monkeypatch.context() as before:
            before.setattr("disfs.metadata.dentries.REPORTS_NAME", b"none")
            own = await write(world, b".disfs", b"mine")
        found = await world.filesystem.lookup(ROOT_INODE, b".disfs")
        assert found is not None
        assert own == found.inode
