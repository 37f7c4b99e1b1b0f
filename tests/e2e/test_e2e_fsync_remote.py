"""A mount on which fsync waits for Discord."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Product]:
    """A mount that would send nothing by itself for an hour."""
    with product(tmp_path) as running:
        running.mount("-o", "fsync=remote,writeback_delay=3600")
        yield running


def test_fsync_returns_when_the_data_is_in_discord(patient: Product) -> None:
    """fsync, and a write to a file opened with O_SYNC or O_DSYNC."""
    for name, flags in (("fsync", 0), ("sync", os.O_SYNC), ("dsync", os.O_DSYNC)):
        before = len(patient.data_messages())
        descriptor = os.open(patient.mountpoint / name, os.O_CREAT | os.O_WRONLY | flags)
        os.write(descriptor, name.encode() * 1000)
        if not flags:
            assert before == len(patient.data_messages())
            os.fsync(descriptor)
        os.close(descriptor)
        assert before + 1 == len(patient.data_messages())
    directory = os.open(patient.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)


def test_fsync_returns_when_the_names_are_in_discord(patient: Product) -> None:
    """fsync of a directory, and of a file: a journal has gone out for what was changed."""
    for number in (1, 2):
        before = patient.index_message_count()
        (patient.mountpoint / f"directory{number}").mkdir()
        descriptor = os.open(patient.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
        assert before < patient.index_message_count()
    before = patient.index_message_count()
    descriptor = os.open(patient.mountpoint / "file", os.O_CREAT | os.O_WRONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    assert before < patient.index_message_count()


def test_a_signal_ends_the_waiting(patient: Product) -> None:
    """While uploads are paused an fsync waits; a signal ends it with EINTR, and the data is sent later."""
    patient.run("pause", str(patient.mountpoint))
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError))\n"
        "descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "os.write(descriptor, b'to be sent')\n"
        "signal.alarm(1)\n"
        "try:\n"
        "    os.fsync(descriptor)\n"
        "except TimeoutError:\n"
        "    print('interrupted')\n"
    )
    arguments = [sys.executable, "-c", program, str(patient.mountpoint / "file")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ("interrupted\n", "") == (done.stdout, done.stderr)
    patient.run("resume", str(patient.mountpoint))
    descriptor = os.open(patient.mountpoint / "file", os.O_WRONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    assert 1 == len(patient.data_messages())
