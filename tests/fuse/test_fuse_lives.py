"""The mount as a whole: what survives an unmount and a kill, what survives a bug, and that both loops give the same."""

# ruff: noqa: PTH208 - these tests are about system calls

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.syscalls import eventually, failing

from bench.suites.posix.calls import EXCHANGE, renameat2

if TYPE_CHECKING:
    from pathlib import Path


def tree(root: Path, *, contents: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything below a directory, in a form that can be compared."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        what = path.lstat()
        data = path.read_bytes() if contents and stat.S_ISREG(what.st_mode) else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        xattrs = {} if path.is_symlink() else {name: os.getxattr(path, name) for name in os.listxattr(path)}
        attributes = (what.st_mode, what.st_nlink, what.st_size, what.st_rdev)
        found[str(path.relative_to(root))] = (*attributes, data, target, xattrs)
    return found


def exercise(root: Path) -> list[object]:
    """A bit of everything; returns what was seen on the way."""
    seen: list[object] = []
    (root / "d" / "e").mkdir(parents=True)
    for number in range(60):
        (root / "d" / f"{number}").write_bytes(bytes([number]) * number * 1000)
    (root / "link").symlink_to("d/5")
    os.link(root / "d" / "7", root / "seven")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "seven", "user.x", b"value")
    renameat2(root / "d" / "1", root / "d" / "e", EXCHANGE)
    seen.append((root / "link").read_bytes())
    seen.append(failing((root / "d").rmdir))
    seen.append(failing((root / "nothing").stat))
    os.truncate(root / "d" / "9", 123)
    with (root / "d" / "9").open("r+b") as file:
        file.seek(5000)
        file.write(b"far")
    (root / "d" / "20").unlink()
    (root / "d" / "21").rename(root / "moved")
    seen.append(sorted(os.listdir(root / "d")))
    return seen


@pytest.mark.parametrize("parts", ["memory", "sqlite"])
def test_polled_and_stock_loop_give_equal_results(tmp_path: Path, parts: str) -> None:
    """The same calls see and leave the same with either request loop."""
    results = []
    for loop in ("stock", "polled"):
        with mounted(tmp_path / loop, loop=loop, parts=parts) as found:
            seen = exercise(found.root)
            results.append((seen, tree(found.root)))
    assert results[0] == results[1]


def test_parallel_clients_are_served_by_both_loops(tmp_path: Path) -> None:
    """Many processes at once see their own files whole, also while some wait for others."""
    for loop in ("stock", "polled"):
        with mounted(tmp_path / loop, loop=loop) as found:
            children = []
            for number in range(6):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        for turn in range(40):
                            path = found.root / f"{number}-{turn}"
                            path.write_bytes(bytes([number]) * 3000)
                            assert path.read_bytes() == bytes([number]) * 3000
                            if turn % 2:
                                path.unlink()
                        code = 0
                    finally:
                        os._exit(code)
                children.append(pid)
            assert [0] * 6 == [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            assert 120 == len(os.listdir(found.root))


def test_everything_survives_a_remount(tmp_path: Path) -> None:
    """After an unmount and a new mount all is as it was."""
    with mounted(tmp_path, parts="real") as found:
        exercise(found.root)
        (found.root / "big").write_bytes(b"0123456789abcdef" * 100_000)
        # The Discord in memory ends with its daemon, and with it the contents.
        before = tree(found.root, contents=False)
    with mounted(tmp_path, parts="real") as found:
        assert before == tree(found.root, contents=False)


def test_orphans_of_a_killed_daemon_are_gone_at_the_next_mount(tmp_path: Path) -> None:
    """A file that was open without a name when the daemon was killed takes no room afterwards."""
    with mounted(tmp_path, ends_itself=True) as found:
        fd = os.open(found.root / "orphan", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"x" * 100_000)
        (found.root / "orphan").unlink()
        (found.root / "named").touch()
        os.fsync(fd)
        found.process.kill()
        found.process.wait()
        assert errno.ENOTCONN == failing(lambda: os.listdir(found.root))
        os.close(fd)
    with mounted(tmp_path) as found:
        assert ["named"] == os.listdir(found.root)
        space = os.statvfs(found.root)
        assert 2 == space.f_files - space.f_ffree
        assert space.f_blocks == space.f_bfree


def test_bug_in_a_request_is_eio_and_the_mount_goes_on(tmp_path: Path) -> None:
    """An exception that nobody expects fails one call; its traceback is logged, and everything else works."""
    with mounted(tmp_path, logs_errors=True) as found:
        (found.root / "file").write_bytes(b"before")
        fd = os.open(found.root / "file", os.O_RDWR)
        found.process.send_signal(signal.SIGUSR1)
        eventually(lambda: errno.EIO == failing(lambda: os.pwrite(fd, b"x", 0)))
        assert ["file"] == os.listdir(found.root)
        found.process.send_signal(signal.SIGUSR2)
        eventually(lambda: 0 == failing(lambda: os.pwrite(fd, b"after!", 0)))
        os.close(fd)
        assert b"after!" == (found.root / "file").read_bytes()
    assert "ZeroDivisionError: asked for" in found.log()


def test_terminated_daemon_unmounts(tmp_path: Path) -> None:
    """SIGTERM ends the session in order, also while nothing is happening."""
    with mounted(tmp_path, ends_itself=True) as found:
        (found.root / "file").write_bytes(b"x")
        found.process.terminate()
        assert 0 == found.process.wait(20)
        assert not os.path.ismount(found.root)
    assert [] == os.listdir(found.root)


def test_kernel_forgets_and_so_do_we(tmp_path: Path) -> None:
    """Thousands of files made and removed leave no inode behind in the store."""
    with mounted(tmp_path) as found:
        for _ in range(3):
            for number in range(400):
                (found.root / str(number)).write_bytes(b"x")
            for number in range(400):
                (found.root / str(number)).unlink()
        eventually(lambda: 1 == os.statvfs(found.root).f_files - os.statvfs(found.root).f_ffree)


@pytest.mark.parametrize("option", ["noatime", "ro"])
def test_regression_atimes_stay_where_the_mount_says_so(tmp_path: Path, option: str) -> None:
    """With noatime or ro no read moves an atime: not of a file, a directory or a link."""
    with mounted(tmp_path, parts="kept") as found:
        (found.root / "file").write_bytes(b"x")
        (found.root / "dir").mkdir()
        (found.root / "link").symlink_to("file")
        for name in ("file", "dir", "link"):
            os.utime(found.root / name, ns=(5, 6), follow_symlinks=False)
    with mounted(tmp_path, parts="kept", options=[option]) as found:
        assert b"x" == (found.root / "link").read_bytes()
        assert [] == os.listdir(found.root / "dir")
        assert [5, 5, 5] == [(found.root / name).lstat().st_atime_ns for name in ("file", "dir", "link")]
