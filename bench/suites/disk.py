"""What suites run on: a mounted disfs volume of its own under a memory limit, or a directory of the local disk."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contents import Contents
from bench.lab import Lab
from bench.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMORY_BYTES = 3 << 30
"""The daemon's address space: what runs away ends the daemon, not the machine."""


class Disk:
    """Where suites put their files."""

    def __init__(self, files: Path, scratch: Path, lab: Lab | None) -> None:
        self.files = files
        self.scratch = scratch
        """A directory on the local disk."""
        self._lab = lab

    def trouble(self) -> str | None:
        """Why what is tested cannot be used any more, None when it can."""
        try:
            list(self.files.iterdir())
        except OSError as error:
            return f"the file system is gone: {error.strerror}"
        return None

    def peak_bytes(self) -> int | None:
        """The most memory that the daemon has held since the last call; None for a local directory."""
        if self._lab is None:
            return None
        process = Path(f"/proc/{self._lab.daemon_pid}")
        found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        assert found is not None, "the kernel shows the peak of every process"
        (process / "clear_refs").write_text("5")
        return int(found[1]) << 10


@contextlib.contextmanager
def mounted(directory: Path | None, options: Sequence[str] = ()) -> Iterator[Disk]:
    """A new volume, mounted for everybody and with these `-o` options; nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="disfs-suites-", dir=directory) as temporary:
        place = Path(temporary)
        # Other users have to reach the mount point: some tests run as nobody.
        place.chmod(0o755)
        scratch = place / "scratch"
        scratch.mkdir()
        with Lab(place / "lab", Shape(), Contents()) as lab:
            lab.mount("-o", ",".join(("allow_other", "dev", "suid", *options)))
            resource.prlimit(lab.daemon_pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            lab.files.chmod(0o755)
            yield Disk(lab.files, scratch, lab)


@contextlib.contextmanager
def local(directory: Path) -> Iterator[Disk]:
    """A directory below `directory`, deleted at the end: what it fails is not our failure."""
    with tempfile.TemporaryDirectory(prefix="disfs-suites-", dir=directory) as temporary:
        place = Path(temporary)
        place.chmod(0o755)
        for name in ("files", "scratch"):
            (place / name).mkdir()
        yield Disk(place / "files", place / "scratch", None)
        shutil.rmtree(place / "files", ignore_errors=True)
