"""Random operations on a real mount, on the local disk and on a model in dicts: whatever can be seen is the same.

The daemon is stopped, killed and started in between. `DISFS_MODEL_EXAMPLES` makes it a longer run, which is another
one each time unless `DISFS_MODEL_SEED` is set; what fails is printed as the steps that lead there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from support.kept_disk import kept_disk
from support.model_trial import HOME, UMASK, Trial, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.kept_disk import KeptDisk

EXAMPLES = int(os.environ.get("DISFS_MODEL_EXAMPLES", "0"))
SEED = int(os.environ.get("DISFS_MODEL_SEED", "0"))
STEPS = 60 if EXAMPLES else 40
CHUNK = 4096

NEW = st.sampled_from(
    [f"{HOME}/{path}" for path in ("a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/a", "b/a/c", "a/../b", "c/a")]
)
PATHS = st.one_of(st.integers(0, 15), NEW)
"""A number stands for one of the paths that there are: most operations should find something."""
TARGETS = st.sampled_from(["a", "b", "c", "a/b", ".", "b/a"])
BORDERS = st.sampled_from([0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 3, 2 * CHUNK, 3 * CHUNK + 7, 5 * CHUNK])
LENGTHS = st.sampled_from([0, 1, 3, 100, CHUNK - 1, CHUNK, CHUNK + 2, 2 * CHUNK])
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o4711, 0o2750, 0o1777])
NAMES = st.sampled_from(["user.a", "user.b"])
SLOTS = st.integers(0, 3)
WAYS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
EXTRAS = st.sampled_from(
    [0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC, os.O_NOFOLLOW]
)
KEPT_TIMES = st.sampled_from([0, -1_500_000_001, 10**18 + 7, 5_000_000_000_123_456_789])
OWNERS = st.sampled_from([0, 7, 2**32 - 2])
FLAGS = st.sampled_from([0, 0, 0, 1, 2, 2])


class FilesystemMachine(RuleBasedStateMachine):
    """The operations; `Trial` compares."""

    def __init__(self, disk: KeptDisk, local: Path, number: int) -> None:
        super().__init__()
        self.trial = Trial(disk, local, f"t{number}")
        self.bytes = 0

    def text(self, length: int) -> bytes:
        """Bytes that are different at each place and each time."""
        self.bytes += 1
        return bytes((self.bytes * 7 + place * 13 + place // 251) % 255 + 1 for place in range(length))

    def slot(self, number: int) -> int | None:
        """One of the open files, None when there is none."""
        known = sorted(self.trial.model.files)
        return known[number % len(known)] if known else None

    def path(self, path: str | int) -> str:
        """A path, whichever way it was drawn."""
        if isinstance(path, str):
            return path
        known = [known for known, _ in tree(self.trial.model) if known.startswith(f"{HOME}/")]
        return known[path % len(known)] if known else HOME

    def step(self, call: str, path: str | int, *arguments: Any) -> None:
        """An operation on a path."""
        self.trial.step(call, self.path(path), *arguments)

    def on_slot(self, call: str, number: int, *arguments: Any) -> None:
        slot = self.slot(number)
        if slot is not None:
            self.trial.step(call, slot, *arguments)

    # Names

    @initialize(first=st.sampled_from(["a", "b"]))
    def begin(self, first: str) -> None:
        """Something to work on: a file of two names that is open, one that is closed, directories within each other."""
        other = "b" if first == "a" else "a"
        self.trial.step("mkdir", f"{HOME}/{first}", 0o755)
        self.trial.step("mkdir", f"{HOME}/{first}/b", 0o755)
        slot = next(self.trial.slots)
        self.trial.step("open", slot, f"{HOME}/{first}/b/a", os.O_RDWR | os.O_CREAT, 0o644)
        self.trial.step("write", slot, CHUNK - 10, self.text(CHUNK + 20))
        self.trial.step("link", f"{HOME}/{first}/b/a", f"{HOME}/{other}")
        self.trial.step("mkdir", f"{HOME}/c", 0o755)
        self.write_file(f"{HOME}/c/a", 0, 100)

    @rule(path=NEW, mode=st.sampled_from([0o755, 0o700]))
    def mkdir(self, path: str, mode: int) -> None:
        self.step("mkdir", path, mode)

    @rule(path=NEW)
    def mkfifo(self, path: str) -> None:
        self.step("mkfifo", path, 0o666)

    @rule(leads_to=TARGETS, path=NEW)
    def symlink(self, leads_to: str, path: str) -> None:
        self.trial.step("symlink", leads_to, path)

    @rule(old=PATHS, new=NEW)
    def link(self, old: str | int, new: str) -> None:
        self.trial.step("link", self.path(old), new)

    @rule(path=PATHS)
    def unlink(self, path: str | int) -> None:
        self.step("unlink", path)

    @rule(path=PATHS)
    def rmdir(self, path: str | int) -> None:
        self.step("rmdir", path)

    @rule(old=PATHS, new=PATHS, flags=FLAGS)
    def rename(self, old: str | int, new: str | int, flags: int) -> None:
        self.trial.step("rename", self.path(old), self.path(new), flags)

    @rule(old=PATHS, new=PATHS, flags=FLAGS)
    def rename_again(self, old: str | int, new: str | int, flags: int) -> None:
        """Renames are where file systems are wrong: twice as many."""
        self.trial.step("rename", self.path(old), self.path(new), flags)

    @rule(path=PATHS)
    def look(self, path: str | int) -> None:
        self.step("listdir", path)
        self.step("readlink", path)

    # Attributes

    @rule(path=PATHS, mode=MODES)
    def chmod(self, path: str | int, mode: int) -> None:
        self.step("chmod", path, mode)

    @precondition(lambda _: os.getuid() == 0)
    @rule(path=PATHS, uid=OWNERS, gid=OWNERS)
    def chown(self, path: str | int, uid: int, gid: int) -> None:
        self.step("lchown", path, uid, gid)

    @rule(path=PATHS, atime=KEPT_TIMES, mtime=KEPT_TIMES)
    def utime(self, path: str | int, atime: int, mtime: int) -> None:
        self.step("utime", path, atime, mtime)

    @rule(path=PATHS)
    def touch(self, path: str | int) -> None:
        self.step("touch", path)

    @rule(path=PATHS, name=NAMES, length=LENGTHS, flags=st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def setxattr(self, path: str | int, name: str, length: int, flags: int) -> None:
        self.step("setxattr", path, name, self.text(min(length, 1000)), flags)

    @rule(path=PATHS, name=NAMES)
    def removexattr(self, path: str | int, name: str) -> None:
        self.step("getxattr", path, name)
        self.step("removexattr", path, name)

    # Files

    @rule(path=PATHS, way=WAYS, extra=EXTRAS, appends=st.booleans())
    def open(self, path: str | int, way: int, extra: int, appends: bool) -> None:
        self.trial.step(
            "open", next(self.trial.slots), self.path(path), way | extra | (os.O_APPEND if appends else 0), 0o666
        )

    @rule(path=PATHS, offset=BORDERS, length=LENGTHS)
    def write_file(self, path: str | int, offset: int, length: int) -> None:
        """Open, write somewhere, close."""
        slot = next(self.trial.slots)
        self.trial.step("open", slot, self.path(path), os.O_RDWR | os.O_CREAT, 0o666)
        if slot in self.trial.model.files:
            self.trial.step("write", slot, offset, self.text(length))
            self.trial.step("close", slot)

    @rule(number=SLOTS, offset=BORDERS, length=LENGTHS)
    def write(self, number: int, offset: int, length: int) -> None:
        self.on_slot("write", number, offset, self.text(length))

    @rule(number=SLOTS, offset=BORDERS, length=LENGTHS)
    def read(self, number: int, offset: int, length: int) -> None:
        self.on_slot("read", number, offset, length + 1)

    @rule(number=SLOTS, offset=BORDERS, length=st.sampled_from([1, 100, CHUNK]))
    def map(self, number: int, offset: int, length: int) -> None:
        slot = self.slot(number)
        if slot is not None and self.trial.model.can_map(slot, offset + length):
            self.trial.step("map_write", slot, offset, self.text(length))
            self.trial.step("map_read", slot)

    @rule(path=PATHS, size=st.one_of(BORDERS, st.just(-1)))
    def truncate(self, path: str | int, size: int) -> None:
        self.step("truncate", path, size)

    @rule(number=SLOTS, size=BORDERS)
    def ftruncate(self, number: int, size: int) -> None:
        self.on_slot("ftruncate", number, size)

    @rule(number=SLOTS, mode=st.sampled_from([0o600, 0o644]))
    def use_open_file(self, number: int, mode: int) -> None:
        self.on_slot("fstat", number)
        self.on_slot("fchmod", number, mode)

    @rule(number=SLOTS)
    def use_open_directory(self, number: int) -> None:
        self.on_slot("list_at", number)
        self.on_slot("mkdir_at", number, "c")

    @rule(number=SLOTS)
    def close(self, number: int) -> None:
        self.on_slot("close", number)

    @rule(number=SLOTS)
    def fsync(self, number: int) -> None:
        self.on_slot("fsync", number)

    # Lives

    @rule(way=st.sampled_from(["stop", "kill", "kill synced", "", "", ""]))
    def end_daemon(self, way: str) -> None:
        """Rare, as it costs a second."""
        if way == "stop":
            self.trial.remount()
        elif way:
            self.trial.crash(synced=way == "kill synced")

    def teardown(self) -> None:
        """Nothing is left behind."""
        self.trial.end()


@pytest.fixture
def no_umask() -> Iterator[None]:
    """The umask that the model counts with."""
    old = os.umask(UMASK)
    yield
    os.umask(old)


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * EXAMPLES)
@pytest.mark.usefixtures("no_umask")
def test_random_operations_are_the_same_as_on_the_local_disk_and_in_the_model(tmp_path: Path) -> None:
    """Results, errno, names, links, attributes, times, holes and contents agree after each step, whoever dies."""
    numbers = iter(range(10**9))
    with kept_disk(tmp_path / "disk") as disk:
        (tmp_path / "local").mkdir()

        class Machine(FilesystemMachine):
            def __init__(self) -> None:
                super().__init__(disk, tmp_path / "local", next(numbers))

        chosen = settings(
            max_examples=EXAMPLES or 12,
            stateful_step_count=STEPS,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        run_state_machine_as_test(hypothesis.seed(SEED)(Machine) if SEED else Machine, settings=chosen)
