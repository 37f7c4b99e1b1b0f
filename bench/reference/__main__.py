"""`python -m bench.reference names|names-stock|handlers|contents MOUNTPOINT [FILE]`: serve one until it is unmounted.

`names-stock` is `names` in pyfuse3's own request loop; `handlers` are disfs's own, with dicts in place of its stores.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from bench.reference.contents import ContentsReference
from bench.reference.names import NamesReference
from bench.reference.stores import handlers
from disfs.polled_loop import polled_loop
from disfs.serving import KERNEL_TASKS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

READY = "ready"


async def _serve(operations: pyfuse3.Operations, mountpoint: str, loop: AbstractContextManager[bool]) -> None:
    with loop as is_as_wanted:
        assert is_as_wanted, "the comparison is with the loop that disfs uses"
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
    operations: pyfuse3.Operations
    if kind == "contents":
        operations = ContentsReference(Path(rest[0]))
    else:
        operations = handlers() if kind == "handlers" else NamesReference()
    loop = contextlib.nullcontext(True) if kind == "names-stock" else polled_loop()
    trio.run(_serve, operations, mountpoint, loop)


if __name__ == "__main__":
    main()
