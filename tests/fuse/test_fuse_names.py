"""Names on a real mount: making, linking, renaming, removing, and how each of them is refused."""

# ruff: noqa: PTH102, PTH104, PTH108, PTH115, PTH116, PTH118, PTH208, PTH211 - these tests are about system calls

from __future__ import annotations

import errno
import os
import stat
import subprocess
from typing import TYPE_CHECKING

from support.syscalls import RENAME_WHITEOUT, failing

from bench.suites.posix.calls import EXCHANGE, NOREPLACE, renameat2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_written_file_is_read_back(here: Path) -> None:
    """What is written to a new file is read from it, under the one name that it has."""
    (here / "a").write_bytes(b"hello")
    assert b"hello" == (here / "a").read_bytes()
    assert {"a"} == names(here)


def test_name_of_255_arbitrary_bytes(here: Path) -> None:
    """A name may be 255 bytes long and hold every byte but NUL and the slash; a longer one is ENAMETOOLONG."""
    every = bytes(b for b in range(1, 256) if b != ord("/"))
    directory = os.fsencode(here)
    for name in (every, b"\xff" * 255, "ä".encode() * 127, b" ", b"\n", b"..."):
        path = os.path.join(directory, name)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        assert [name] == os.listdir(directory)
        os.unlink(path)
    long = here / ("x" * 256)
    calls: list[Callable[[], object]] = [
        long.stat,
        long.touch,
        long.mkdir,
        long.unlink,
        long.rmdir,
        lambda: long.symlink_to("x"),
        lambda: os.mkfifo(long),
        lambda: os.rename(here, long),
        lambda: renameat2(long, here / "x", NOREPLACE),
    ]
    assert [errno.ENAMETOOLONG] * len(calls) == [failing(call) for call in calls]


def test_errors_of_missing_names(here: Path) -> None:
    """Everything that needs a name fails with ENOENT when it is not there."""
    gone = here / "gone"
    calls: list[Callable[[], object]] = [
        gone.stat,
        gone.unlink,
        gone.rmdir,
        gone.read_bytes,
        gone.readlink,
        lambda: gone.chmod(0o600),
        lambda: os.rename(gone, here / "x"),
        lambda: os.link(gone, here / "x"),
        lambda: renameat2(gone, here / "x", EXCHANGE),
        (gone / "below").touch,
    ]
    assert [errno.ENOENT] * len(calls) == [failing(call) for call in calls]


def test_absent_name_that_was_looked_up_can_be_made(here: Path) -> None:
    """A remembered absence ends with every way of making the name."""
    makers: list[Callable[[Path], object]] = [
        lambda p: p.touch(),
        lambda p: p.mkdir(),
        lambda p: p.symlink_to("x"),
        os.mkfifo,
        lambda p: os.link(here / "file", p),
        lambda p: os.rename(here / "file", p),
    ]
    (here / "file").touch()
    for number, make in enumerate(makers):
        path = here / str(number)
        assert not path.exists()
        assert not path.exists()
        make(path)
        path.lstat()


def test_errors_of_existing_names(here: Path) -> None:
    """Making a name that exists is EEXIST, whatever it is."""
    (here / "file").touch()
    (here / "dir").mkdir()

    def attempts(path: Path) -> list[Callable[[], object]]:
        return [
            path.mkdir,
            lambda: path.symlink_to("x"),
            lambda: os.mkfifo(path),
            lambda: os.link(here / "file", path),
            lambda: os.open(path, os.O_CREAT | os.O_EXCL),
            lambda: renameat2(here / "file", path, NOREPLACE),
        ]

    for name in ("file", "dir"):
        assert {errno.EEXIST} == {failing(call) for call in attempts(here / name)}


def test_errors_of_wrong_kinds(here: Path) -> None:
    """Files are no directories, and directories no files."""
    (here / "file").touch()
    (here / "dir").mkdir()
    (here / "full").mkdir()
    (here / "full" / "x").touch()
    (here / "link").symlink_to("file")
    file, directory, full, link = here / "file", here / "dir", here / "full", here / "link"
    assert errno.ENOTDIR == failing((file / "below").stat)
    assert errno.ENOTDIR == failing(file.rmdir)
    assert errno.ENOTDIR == failing(link.rmdir)
    assert errno.EISDIR == failing(directory.unlink)
    assert errno.EISDIR == failing(lambda: os.open(directory, os.O_WRONLY))
    assert errno.EISDIR == failing(lambda: os.truncate(directory, 0))
    assert errno.ENOTEMPTY == failing(full.rmdir)
    assert errno.EPERM == failing(lambda: os.link(directory, here / "x"))
    assert errno.EISDIR == failing(lambda: os.rename(file, directory))
    assert errno.ENOTDIR == failing(lambda: os.rename(directory, file))
    assert errno.ENOTEMPTY == failing(lambda: os.rename(directory, full))
    assert errno.EINVAL == failing(file.readlink)
    assert errno.ELOOP == failing(lambda: os.open(link, os.O_NOFOLLOW))


def test_directory_cannot_be_moved_into_itself(here: Path) -> None:
    """A rename into the own subtree is EINVAL and changes nothing."""
    (here / "a" / "b" / "c").mkdir(parents=True)
    assert errno.EINVAL == failing(lambda: os.rename(here / "a", here / "a" / "x"))
    assert errno.EINVAL == failing(lambda: os.rename(here / "a", here / "a" / "b" / "c" / "x"))
    assert errno.EINVAL == failing(lambda: renameat2(here / "a", here / "a" / "b", EXCHANGE))
    assert errno.ENOTEMPTY == failing(lambda: os.rename(here / "a" / "b" / "c", here / "a"))
    assert (here / "a" / "b" / "c").is_dir()


def test_unknown_rename_flags_are_refused(here: Path) -> None:
    """Flags other than NOREPLACE and EXCHANGE are EINVAL."""
    (here / "a").touch()
    assert errno.EINVAL == failing(lambda: renameat2(here / "a", here / "b", RENAME_WHITEOUT))
    assert errno.EINVAL == failing(lambda: renameat2(here / "a", here / "b", NOREPLACE | EXCHANGE))
    assert {"a"} == names(here)


def test_rename_replaces_at_once(here: Path) -> None:
    """A rename over a file leaves one name with the new contents; over an empty directory likewise."""
    (here / "a").write_text("new")
    (here / "b").write_text("old")
    os.rename(here / "a", here / "b")
    assert {"b"} == names(here)
    assert "new" == (here / "b").read_text()
    (here / "d").mkdir()
    (here / "e").mkdir()
    (here / "d" / "inside").touch()
    os.rename(here / "d", here / "e")
    assert {"b", "e"} == names(here)
    assert {"inside"} == names(here / "e")


def test_rename_of_two_names_of_one_inode_does_nothing(here: Path) -> None:
    """POSIX: both names stay."""
    (here / "a").touch()
    os.link(here / "a", here / "b")
    os.rename(here / "a", here / "b")
    assert {"a", "b"} == names(here)


def test_exchange_swaps_files_and_directories(here: Path) -> None:
    """EXCHANGE swaps what two names stand for, also of different kinds and in different directories."""
    (here / "file").write_text("contents")
    (here / "dir" / "below").mkdir(parents=True)
    (here / "dir" / "other").write_text("else")
    renameat2(here / "file", here / "dir" / "other", EXCHANGE)
    assert "else" == (here / "file").read_text()
    assert "contents" == (here / "dir" / "other").read_text()
    renameat2(here / "file", here / "dir" / "below", EXCHANGE)
    assert (here / "file").is_dir()
    assert "else" == (here / "dir" / "below").read_text()
    assert (here / "file" / "..").stat().st_ino == here.stat().st_ino
    assert (3, 2) == (here.stat().st_nlink - 1, (here / "dir").stat().st_nlink)


def test_editor_saves_survive_in_a_loop(here: Path) -> None:
    """Writing a temporary file and renaming it over the old one, again and again, always shows the newest."""
    target = here / "document"
    for number in range(200):
        new = here / ".document.tmp"
        new.write_text(f"version {number}")
        os.rename(new, target)
        assert f"version {number}" == target.read_text()
        assert {"document"} == names(here)


def test_rename_between_directories_in_a_loop(here: Path) -> None:
    """A directory that wanders keeps its inode, its contents and the right `..` and link counts."""
    homes = [here / "x", here / "y", here / "x" / "deep"]
    for home in homes:
        home.mkdir()
    wanderer = here / "w"
    wanderer.mkdir()
    (wanderer / "inside").write_text("kept")
    inode = wanderer.stat().st_ino
    for number in range(60):
        home = homes[number % 3]
        os.rename(wanderer, home / f"w{number}")
        wanderer = home / f"w{number}"
        assert inode == wanderer.stat().st_ino
        assert home.stat().st_ino == (wanderer / "..").stat().st_ino
        assert 2 + sum(p.is_dir() for p in home.iterdir()) == home.stat().st_nlink
    assert "kept" == (wanderer / "inside").read_text()


def test_hard_links_are_one_file(here: Path) -> None:
    """Links share contents and attributes, count in nlink, and the file stays until the last is gone."""
    (here / "a").write_text("one")
    os.link(here / "a", here / "b")
    os.link(here / "a", here / "c")
    assert (here / "a").stat() == (here / "b").stat()
    assert 3 == (here / "c").stat().st_nlink
    (here / "b").write_text("two")
    (here / "a").unlink()
    assert "two" == (here / "c").read_text()
    assert 2 == (here / "b").stat().st_nlink
    (here / "b").unlink()
    assert "two" == (here / "c").read_text()


def test_symlink_targets(here: Path) -> None:
    """A target of 1 to 4095 bytes comes back as it is and is the link's size; an empty one is ENOENT."""
    for target in (b"x", b"\xff/../ ", b"t" * 4095):
        link = os.fsencode(here / "link")
        os.symlink(target, link)
        assert target == os.readlink(link)
        assert len(target) == os.lstat(link).st_size
        os.unlink(link)
    assert errno.ENOENT == failing(lambda: os.symlink("", here / "link"))
    assert errno.ENAMETOOLONG == failing(lambda: os.symlink("t" * 4096, here / "link"))


def test_special_files_keep_kind_and_device_number(here: Path) -> None:
    """FIFO, socket and device nodes are kept as what they are; a FIFO works."""
    os.mkfifo(here / "fifo", 0o640)
    os.mknod(here / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(here / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(here / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    os.mknod(here / "large", stat.S_IFCHR | 0o600, os.makedev(4095, (1 << 20) - 1))
    os.mknod(here / "plain", stat.S_IFREG | 0o600)
    kinds = {name: stat.filemode((here / name).stat().st_mode)[0] for name in names(here)}
    assert {"fifo": "p", "socket": "s", "null": "c", "block": "b", "large": "c", "plain": "-"} == kinds
    assert os.makedev(4095, (1 << 20) - 1) == (here / "large").stat().st_rdev
    assert os.makedev(259, 70000) == (here / "block").stat().st_rdev
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(here / "fifo", os.O_WRONLY)
    os.write(writer, b"through the pipe")
    assert b"through the pipe" == os.read(reader, 100)
    os.close(reader)
    os.close(writer)


def test_umask_and_owner_of_new_files(here: Path) -> None:
    """The mode of what is made is what was asked for without the umask; the owner is who asked."""
    old = os.umask(0o027)
    try:
        os.close(os.open(here / "file", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir(here / "dir", 0o777)
        os.mkfifo(here / "fifo", 0o666)
    finally:
        os.umask(old)
    assert [0o750, 0o750, 0o640] == [stat.S_IMODE((here / n).stat().st_mode) for n in ("file", "dir", "fifo")]
    assert (os.getuid(), os.getgid()) == ((here / "file").stat().st_uid, (here / "file").stat().st_gid)


def test_setgid_directory_hands_down_its_group(here: Path) -> None:
    """In a setgid directory files take its group, directories also its setgid bit."""
    directory = here / "shared"
    directory.mkdir()
    os.chown(directory, 0, 4321)
    directory.chmod(0o2775)
    (directory / "file").touch()
    (directory / "sub" / "subsub").mkdir(parents=True)
    assert 4321 == (directory / "file").stat().st_gid
    assert not (directory / "file").stat().st_mode & stat.S_ISGID
    assert 4321 == (directory / "sub" / "subsub").stat().st_gid
    assert (directory / "sub" / "subsub").stat().st_mode & stat.S_ISGID


def test_removed_directory_takes_no_more_names(here: Path) -> None:
    """In a directory that is gone but held, names can neither be made nor found: ENOENT."""
    directory = here / "dir"
    directory.mkdir()
    (here / "file").touch()
    held = os.open(directory, os.O_RDONLY)
    directory.rmdir()
    try:
        assert 0 == os.fstat(held).st_nlink
        assert [] == os.listdir(held) or errno.ENOENT == failing(lambda: os.listdir(held))
        assert errno.ENOENT == failing(lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=held))
        assert errno.ENOENT == failing(lambda: os.mkdir("x", dir_fd=held))
        assert errno.ENOENT == failing(lambda: os.link(here / "file", "x", dst_dir_fd=held))
        assert errno.ENOENT == failing(lambda: os.rename(here / "file", "x", dst_dir_fd=held))
        assert errno.ENOENT == failing(lambda: os.stat("x", dir_fd=held))
    finally:
        os.close(held)


def test_many_links_up_to_the_limit(here: Path) -> None:
    """A file has as many names as it is given, each of them real."""
    (here / "a").touch()
    for number in range(300):
        os.link(here / "a", here / str(number))
    assert 301 == (here / "a").stat().st_nlink
    assert 301 == len(names(here))


def test_tree_deeper_than_any_path(here: Path) -> None:
    """Names beyond PATH_MAX are reached step by step; their path is ENAMETOOLONG, and rm gets rid of them."""
    name = "n" * 255
    directory = os.open(here, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=directory)
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    assert ["file"] == os.listdir(directory)
    os.close(directory)
    assert errno.ENAMETOOLONG == failing(lambda: os.stat(here.joinpath(*[name] * 20)))
    subprocess.run(["rm", "-r", here / name], check=True)
    assert [] == os.listdir(here)
