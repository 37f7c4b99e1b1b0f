"""A file system without a kernel: the real metadata store or its model, and chunks that can be held back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disfs.filesystem import Filesystem
from disfs.kernel_clock import KernelClock
from disfs.values import ROOT_INODE, NewInode
from support.memory_chunks import MemoryChunks

if TYPE_CHECKING:
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.values import Attributes, InodeNumber
    from support.memory_metadata import MemoryMetadataStore

FILE = NewInode(mode=0o100644, uid=1, gid=2)
DIRECTORY = NewInode(mode=0o40755, uid=1, gid=2)


@dataclass(frozen=True)
class Member:
    """A caller in certain groups."""

    gids: frozenset[int] = frozenset({2})
    is_privileged: bool = False

    def is_member(self, gid: int) -> bool:
        return gid in self.gids


class SteppingClock(KernelClock):
    """Each look is a second later."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000

    def now_ns(self) -> int:
        self.seconds += 1
        return self.seconds * 10**9


@dataclass
class World:
    """A file system and what it stands on."""

    metadata: SqliteMetadataStore | MemoryMetadataStore
    chunks: MemoryChunks = field(init=False)
    clock: SteppingClock = field(default_factory=SteppingClock)
    filesystem: Filesystem = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = MemoryChunks(self.metadata)
        self.filesystem = Filesystem(self.metadata, self.chunks, capacity_bytes=1 << 40, clock=self.clock)

    async def create(self, name: bytes = b"file", flags: int = 0) -> tuple[int, InodeNumber]:
        """A new open file in the root directory: handle and inode."""
        fh, attributes = await self.filesystem.create(ROOT_INODE, name, FILE, flags)
        return fh, attributes.inode

    async def size(self, inode: InodeNumber) -> int:
        return (await self.metadata.attributes(inode)).size_bytes

    async def listing(self, directory: InodeNumber, room: int = 1000, after: int = 0) -> list[tuple[bytes, int]]:
        """Names and cookies that one reply with so much room holds."""
        taken: list[tuple[bytes, int]] = []

        def add(name: bytes, attributes: Attributes, cookie: int) -> bool:
            if len(taken) == room:
                return False
            taken.append((name, cookie))
            return True

        await self.filesystem.read_directory(directory, after, add)
        return taken
