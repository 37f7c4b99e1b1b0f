"""`python -m bench.reference names|contents MOUNTPOINT [FILE]`: serve a reference file system until it is unmounted."""

from __future__ import annotations

import sys
from pathlib import Path

import pyfuse3
import trio

from bench.reference.contents import ContentsReference
from bench.reference.names import NamesReference
from disfs.daemon import KERNEL_TASKS
from disfs.polled_loop import polled_loop

READY = "ready"


async def _serve(operations: pyfuse3.Operations, mountpoint: str) -> None:
    with polled_loop() as polled:
        assert polled, "the comparison is with the loop that disfs uses"
        pyfuse3.init(operations, mountpoint, {"fsname=reference", "default_permissions"})
        try:
            # The mount answers as soon as main() runs; what is asked before that waits in the kernel.
            sys.stdout.write(f"{READY}\n")
            sys.stdout.flush()
            await pyfuse3.main(max_tasks=KERNEL_TASKS)
        finally:
            pyfuse3.close(unmount=True)


def main() -> None:
    """Choose what is served, and serve it."""
    kind, mountpoint, *rest = sys.argv[1:]
    operations = NamesReference() if kind == "names" else ContentsReference(Path(rest[0]))
    trio.run(_serve, operations, mountpoint)


if __name__ == "__main__":
    main()
