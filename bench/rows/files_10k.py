"""Thousands of small files share a few messages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.shape import KIB, messages_for

if TYPE_CHECKING:
    from bench.lab import Lab

FILES = 10_000
FILE_BYTES = 4 * KIB
FILES_PER_DIRECTORY = 100
MAX_MESSAGES = 6
MAX_SECONDS = 15.0


def _run(lab: Lab, scale: float) -> Outcome:
    count = max(1, int(FILES * scale))
    size = count * FILE_BYTES
    lab.shape_network()
    lab.mount()
    with lab.measured("write and sync", count, "file", written_bytes=size) as stretch:
        began = time.perf_counter()
        _write(lab, count)
        closed = time.perf_counter()
        lab.sync()
        synced = time.perf_counter()
    messages = stretch.costs.requests.get("create_message", 0)
    best = lab.shape.upload_seconds(size) + lab.shape.latency_seconds
    return Outcome(
        (
            Check.bounded("messages", messages, "messages", messages_for(size), MAX_MESSAGES),
            Check.bounded("sync after the last close", synced - closed, "s", best, MAX_SECONDS),
        ),
        (stretch.costs,),
        {"writer": f"{count / (closed - began):.0f} files/s until the last close"},
    )


def _write(lab: Lab, count: int) -> None:
    for number in range(count):
        directory = lab.files / f"d{number // FILES_PER_DIRECTORY}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir()
        with (directory / f"f{number}").open("wb", buffering=0) as file:
            file.write(lab.contents.piece(2, number, FILE_BYTES))


ROW = Row("files-10k", "10,000 files of 4 KiB, random bytes, then sync", _run)
