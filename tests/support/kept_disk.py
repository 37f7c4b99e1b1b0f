"""A real mount that is unmounted, killed and mounted again while a test goes on, and keeps what it holds."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from support.mounted import STOP_SECONDS, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.mounted import Mounted


class KeptDisk:
    """Mounted whenever nobody just took it away. `chunk_bytes` is the size of its chunks."""

    chunk_bytes = 4096

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._mount: Mounted | None = None

    @property
    def root(self) -> Path:
        """Where it is mounted."""
        return self._directory / "mnt"

    def mount(self) -> None:
        """Mount it, if it is not mounted and alive."""
        if self._mount is not None and self._mount.process.poll() is not None:
            self._take_away()
        if self._mount is None:
            self._mount = self._stack.enter_context(
                mounted(self._directory, parts="kept", options=["allow_other"], ends_itself=True)
            )

    @property
    def metadata_path(self) -> Path:
        """The metadata database; to be looked at while it is not mounted."""
        return self._directory / "state" / "metadata.db"

    def remount(self) -> None:
        """Stop it in order and mount it again. Nothing on it may be open."""
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        """Stop it in order. Nothing on it may be open."""
        assert self._mount is not None
        process = self._mount.process
        subprocess.run(["fusermount3", "-u", str(self.root)], check=True)
        assert process.wait(STOP_SECONDS) == 0, self._mount.log()
        self._take_away()

    def kill(self) -> None:
        """kill -9 the daemon; what was open on it answers with errors."""
        assert self._mount is not None
        self._mount.process.kill()
        self._mount.process.wait()

    def close(self) -> None:
        """Unmount it, whatever state it is in."""
        self._take_away()

    def _take_away(self) -> None:
        self._mount = None
        self._stack.close()


@contextlib.contextmanager
def kept_disk(directory: Path) -> Iterator[KeptDisk]:
    """A mounted `KeptDisk`, gone at the end. Fails if its daemon logged an error."""
    disk = KeptDisk(directory)
    try:
        disk.mount()
        yield disk
    finally:
        disk.close()
