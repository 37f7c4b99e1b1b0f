"""POSIX ACLs on a real mount: what programs see, who may do what, each compared with the local disk."""

# ruff: noqa: PTH101, PTH102, PTH211 - these tests are about system calls

from __future__ import annotations

import errno
import os
import random
import stat
from typing import TYPE_CHECKING

import pytest
from support.acls import an_acl
from support.mounted import mounted
from support.same_as_local import MEMBER, OWNER, ROOT, STRANGER, shell, shown

from disfs.posix_acl import AclEntry, AclKind, Tag, build_acl

if TYPE_CHECKING:
    from pathlib import Path

    from support.same_as_local import Both, Record, User

    from disfs.posix_acl import Acl

pytestmark = [pytest.mark.usefixtures("mount"), pytest.mark.parametrize("mount", ["sqlite"], indirect=True)]
"""What lies in the files does not matter here."""

ACCESS, DEFAULT = (os.fsdecode(kind.value) for kind in AclKind)
SHARED = build_acl(an_acl(7, 5, 0, mask=7, users={STRANGER.uid: 7}))
PARTS, STEPS = 4, 100


def make(path: str, mode: int = 0o666) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def acls_of(path: str) -> list[tuple[str, str]]:
    return [(name, os.getxattr(path, name).hex()) for name in sorted(os.listxattr(path))]


def run_shell(both: Both, command: str, user: User = ROOT) -> None:
    """In both places, with the same output and status."""
    both.run(lambda record: record(shell, command), user)


def see(record: Record, *paths: str) -> None:
    for path in paths:
        record(shown, path)
        record(acls_of, path)


def with_umask(mask: int, path: str, mode: int) -> None:
    os.umask(mask)
    make(path, mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_default_acl_takes_the_place_of_the_umask(both: Both, mask: int) -> None:
    """Files, directories, FIFOs, devices and links in a directory with a default ACL are as on the local disk."""

    def script(record: Record) -> None:
        os.mkdir("d")
        os.setxattr("d", DEFAULT, SHARED)
        os.umask(mask)
        make("d/f")
        make("d/private", 0o600)
        os.mkdir("d/s")
        os.mkdir("d/s/t", 0o700)
        os.mkfifo("d/p")
        os.mknod("d/n", stat.S_IFCHR | 0o666, 0x103)
        os.mknod("d/r", stat.S_IFREG | 0o640)
        os.symlink("f", "d/l")
        see(record, *(f"d/{name}" for name in ("f", "private", "s", "s/t", "p", "n", "r")))
        record(shown, "d/l")

    found = both.run(script)
    assert "0o100660" == found["shown('d/f')"][0]


def test_umask_counts_elsewhere(both: Both) -> None:
    """Without a default ACL the umask is taken off, whatever else the directory has."""

    def script(record: Record) -> None:
        os.setxattr(".", ACCESS, SHARED)
        for mask in (0o000, 0o027, 0o777):
            os.umask(mask)
            make(f"f{mask}")
            os.mkdir(f"d{mask}")
            os.mkfifo(f"p{mask}")
            see(record, f"f{mask}", f"d{mask}", f"p{mask}")

    assert "0o100640" == both.run(script)["shown('f23')"][0]


def test_setgid_directory_with_a_default_acl(both: Both) -> None:
    """Group and setgid bit are handed down, and so is the ACL."""

    def root(record: Record) -> None:
        os.mkdir("d")
        os.chown("d", OWNER.uid, 1400)
        os.chmod("d", 0o2777)
        os.setxattr("d", DEFAULT, SHARED)
        see(record, "d")

    def user(record: Record) -> None:
        make("d/f", 0o2777)
        os.mkdir("d/s")
        make("d/s/f")
        see(record, "d/f", "d/s", "d/s/f")

    both.run(root)
    assert 1400 == both.run(user, OWNER)["shown('d/s/f')"][2]


ODD = {
    "empty": b"",
    "no entries": SHARED[:4],
    "minimal": build_acl(an_acl(6, 4, 4)),
    "mask alone": build_acl(an_acl(6, 4, 4, mask=0)),
    "version 1": b"\1" + SHARED[1:],
    "cut": SHARED[:-1],
    "too short": SHARED[:3],
    "without others": SHARED[:-8],
    "out of order": SHARED[:4] + SHARED[12:] + SHARED[4:12],
    "bits that are none": SHARED[:6] + b"\x08" + SHARED[7:],
    "named twice": build_acl((*an_acl(6, 4, 4)[:1], *[AclEntry(Tag.USER, 6, 5)] * 2, *an_acl(6, 4, 4, mask=6)[1:])),
    "not sorted": build_acl(an_acl(6, 4, 4, mask=6, users={7: 1, 5: 2})),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_values(both: Both, what: str) -> None:
    """What is set, refused or taken as a removal is that on the local disk too, on files, directories and links."""

    def script(record: Record) -> None:
        make("f")
        os.mkdir("d")
        os.symlink("f", "l")
        for path in ("f", "d", "l"):
            for name in (ACCESS, DEFAULT):
                record(os.setxattr, path, name, ODD[what], follow_symlinks=False)
                record(os.getxattr, path, name, follow_symlinks=False)
        see(record, "f", "d")

    both.run(script)


def test_flags_do_not_matter(both: Both) -> None:
    """ACLs are set whether they are there or not; removing what is not there is no error; ENODATA when asked for."""

    def script(record: Record) -> None:
        make("f")
        os.mkdir("d")
        for path in ("f", "d"):
            for name in (ACCESS, DEFAULT):
                record(os.getxattr, path, name)
                record(os.removexattr, path, name)
                record(os.setxattr, path, name, SHARED, os.XATTR_REPLACE)
                record(os.setxattr, path, name, SHARED, os.XATTR_CREATE)
                see(record, path)
                record(os.removexattr, path, name)
                see(record, path)

    assert both.run(script)["removexattr('d', 'system.posix_acl_default')"] is None


def test_only_the_owner_sets_acls(both: Both) -> None:
    """Others get EPERM, whatever they may do with the file; they may look."""

    def root(record: Record) -> None:
        make("f")
        os.chown("f", OWNER.uid, OWNER.gid)
        os.setxattr("f", ACCESS, SHARED)
        see(record, "f")

    def other(record: Record) -> None:
        record(os.setxattr, "f", ACCESS, SHARED)
        record(os.removexattr, "f", ACCESS)
        see(record, "f")

    both.run(root)
    assert "EPERM" == both.run(other, STRANGER)["removexattr('f', 'system.posix_acl_access')"]
    assert both.run(other, OWNER)["removexattr('f', 'system.posix_acl_access')"] is None


@pytest.mark.parametrize(("group", "mode"), [(OWNER.gid, "0o102770"), (MEMBER.gid, "0o100770")])
@pytest.mark.parametrize("groups", [(), (1399,), (1302, 1399)])
def test_acl_takes_setgid_from_strangers_to_the_group(
    both: Both, group: int, mode: str, groups: tuple[int, ...]
) -> None:
    """Who sets an access ACL and is not in the file's group loses the setgid bit, as with chmod."""

    def root(record: Record) -> None:
        for name in ("a", "m", "c", "d"):
            os.mkdir(name) if name == "d" else make(name)
            os.chown(name, OWNER.uid, group)
            os.chmod(name, 0o2755)
            see(record, name)

    def user(record: Record) -> None:
        os.setxattr("a", ACCESS, SHARED)
        os.setxattr("m", ACCESS, build_acl(an_acl(7, 7, 0)))
        os.chmod("c", 0o2770)
        os.setxattr("d", DEFAULT, SHARED)
        see(record, "a", "m", "c", "d")

    both.run(root)
    found = both.run(user, type(OWNER)(OWNER.uid, OWNER.gid, groups))
    if MEMBER.gid not in groups:
        assert mode == found["shown('a')"][0] == found["shown('c')"][0]


ACCESS_ACLS = {
    "named user": an_acl(6, 0, 0, mask=7, users={STRANGER.uid: 6}),
    "named user, masked": an_acl(6, 0, 0, mask=4, users={STRANGER.uid: 7}),
    "named user with nothing": an_acl(7, 7, 7, mask=7, users={STRANGER.uid: 0}),
    "named group": (*an_acl(6, 0, 0)[:2], AclEntry(Tag.GROUP, 6, 1303), *an_acl(6, 0, 0, mask=6)[2:]),
    "group, masked": an_acl(6, 7, 0, mask=1),
    "owner is not masked": an_acl(7, 7, 7, mask=0),
    "others alone": an_acl(0, 0, 7, mask=7),
    "minimal": an_acl(6, 5, 1),
}


def try_all(record: Record) -> None:
    def attempt(flags: int) -> None:
        os.close(os.open("f", flags))

    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        record(attempt, flags)
    record(os.access, "f", os.X_OK)
    record(os.listdir, "d")
    record(os.stat, "d/none")
    record(make, "d/new")
    record(os.unlink, "d/new")


@pytest.mark.parametrize("acl", ACCESS_ACLS.values(), ids=ACCESS_ACLS)
def test_access_acl_decides_who_may(both: Both, acl: Acl) -> None:
    """Owner, group, named and others may read, write and search what the local disk lets them, and so after chmod."""

    def root(record: Record) -> None:
        make("f")
        os.mkdir("d")
        for path in ("f", "d"):
            os.chown(path, OWNER.uid, OWNER.gid)
            os.setxattr(path, ACCESS, build_acl(acl))
        see(record, "f", "d")

    def chmod(record: Record) -> None:
        for path in ("f", "d"):
            os.chmod(path, 0o750)
        see(record, "f", "d")

    both.run(root)
    for _ in range(2):
        for user in (OWNER, MEMBER, STRANGER, ROOT):
            both.run(try_all, user)
        both.run(chmod)


def test_named_user_is_let_in(both: Both) -> None:
    """And kept out as soon as the mask, or the entry, is gone: the kernel keeps no old ACL."""

    def change(command: str) -> None:
        run_shell(both, command)

    def may_read(user: User) -> bool:
        return both.run(lambda record: record(os.access, "f", os.R_OK), user)["access('f', 4)"] is True

    change(f"touch f; chmod 600 f; setfacl -m u:{STRANGER.uid}:r f")
    assert (True, False) == (may_read(STRANGER), may_read(MEMBER))
    change("chmod g= f")
    assert not may_read(STRANGER)
    change("chmod g=r f")
    assert may_read(STRANGER)
    change(f"setfacl -x u:{STRANGER.uid} f")
    assert not may_read(STRANGER)


PROGRAMS = {
    "setfacl": """
        touch f; mkdir d; ln -s f l
        setfacl -m u:1203:rw,g:1302:r f; getfacl f
        setfacl -m m::r f; getfacl f; ls -l f | cut -c1-11
        setfacl -x u:1203 f; getfacl f; setfacl -b f; getfacl f; ls -l f | cut -c1-11
        setfacl -d -m u:1203:rwx d; getfacl d; setfacl -k d; getfacl d
        setfacl -m u:1203:rw l; getfacl f; setfacl -m u:99999999999:r f; setfacl -m d:u:1:r f; getfacl -c absent""",
    "chmod": """
        touch f; setfacl -m u:1203:rwx f; for mode in 600 640 777 4711 g=w u=,o=r +t; do chmod $mode f; getfacl f; done
        setfacl -b f; ls -l f | cut -c1-11""",
    "recursive": """
        mkdir -p d/e/f; touch d/a d/e/b d/e/f/c; chmod 700 d/a
        setfacl -R -m u:1203:rX,d:u:1203:rX d; tree d; tree d >saved; setfacl -R -b d; tree d
        setfacl --restore=saved; tree d""",
    "copies": """
        mkdir d; setfacl -d -m u:1203:rwx,g:1302:rx d; touch d/f; mkdir d/s; setfacl -m u:1204:r d/f; chmod 751 d/s
        setfattr -n user.note -v text d/f
        cp -a d copied; tree copied; getfattr -d copied/f
        cp -r d plain; tree plain
        tar --acls --xattrs -cf t.tar d; mkdir x; tar --acls --xattrs -C x -xf t.tar; tree x; getfattr -d x/d/f
        mv d/f moved; getfacl moved; cp moved d/again; getfacl d/again
        install -m 640 moved d/third; getfacl d/third""",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("user", [ROOT, OWNER], ids=["root", "user"])
def test_programs_see_what_they_see_on_the_local_disk(both: Both, program: str, user: User) -> None:
    """setfacl, getfacl, chmod, cp, rsync, tar, mv and install do and print the same."""
    for directory in (both.mounted, both.local):
        os.chown(directory, user.uid, user.gid)
    run_shell(both, PROGRAMS[program], user)


def test_rsync_sees_what_it_sees_on_the_local_disk(both: Both) -> None:
    """It copies ACLs, and then finds nothing more to copy."""
    command = """
        mkdir d; setfacl -d -m u:1203:rwx d; touch d/f; mkdir d/s; setfacl -m u:1204:r d/f; chmod 751 d/s
        rsync -aAX d/ synced/; tree synced; rsync -aAXni d/ synced/"""
    run_shell(both, command)


def test_acls_go_from_one_disk_to_the_other_and_back(both: Both) -> None:
    """cp -a and rsync -A carry them to the mount, and nothing is lost when they come back."""
    tree = """
        mkdir -p d/e; touch d/f d/e/g; setfacl -m u:1203:rw,m::r d/f; setfacl -d -m g:1302:rx d d/e; chmod 2750 d/e
        tree d"""
    run_shell(both, tree)
    local, mounted_ = both.local, both.mounted
    there_and_back = f"""
        set -e
        rsync -aAX {local}/d/ {mounted_}/synced/ && test -z "$(rsync -aAXni {local}/d/ {mounted_}/synced/)"
        cp -a {mounted_}/synced {local}/back
        cd {local}/d && tree . >../one && cd ../back && tree . >../two && cmp ../one ../two && cat ../two"""
    status, lines = shell(there_and_back)
    assert 0 == status, lines
    assert [["user:1203:rw-", "#effective:r--"]] == [line.split() for line in lines if "1203" in line]


def a_step(rng: random.Random) -> str:
    """A change of names, modes, owners or ACLs; failing ones among them."""
    path, other = (rng.choice(["a", "b", "d", "d/a", "d/e", "d/e/a"]) for _ in range(2))
    mode = rng.choice(["600", "755", "2770", "6751", "000"])
    entries = ",".join(
        f"{rng.choice(['u:1203', 'g:1302', 'u:', 'g:', 'o:', 'm:'])}:{rng.choice(['r', 'rwx', '-', 'wx'])}"
        for _ in range(rng.randint(1, 3))
    )
    umask = rng.choice(["000", "022", "077"])
    return rng.choice(
        [
            f"(umask {umask}; : >{path})",
            f"(umask {umask}; mkdir -m {mode} {path})",
            f"(umask {umask}; mkdir {path})",
            f"rm -rf {path}",
            f"mv -nT {path} {other}",
            f"ln -nT {path} {other}",
            f"chmod {mode} {path}",
            f"chown {rng.choice(['0', '1201'])}:{rng.choice(['0', '1301'])} {path}",
            f"setfacl -m {entries} {path}",
            f"setfacl -d -m {entries} {path}",
            f"setfacl -{rng.choice('bk')} {path}",
            f"setfacl -x {rng.choice(['u:1203', 'd:g:1302', 'm'])} {path}",
        ]
    )


@pytest.mark.parametrize("seed", range(2))
def test_random_changes_leave_the_same_tree(both: Both, seed: int) -> None:
    """Modes, owners and ACLs of all that is left are equal after hundreds of changes, and every complaint was."""
    rng = random.Random(seed)
    for _ in range(PARTS):
        steps = "\n".join(a_step(rng) for _ in range(STEPS))
        run_shell(both, f"exec 2>&1; {steps}\ntree .")


def test_acls_are_there_after_a_remount(tmp_path: Path) -> None:
    """Stored, enforced, inherited and followed by chmod, in a volume that had them before."""
    with mounted(tmp_path) as mount:
        (mount.root / "d").mkdir()
        os.setxattr(mount.root / "d", DEFAULT, SHARED)
        make(str(mount.root / "d/f"))
        before = acls_of(str(mount.root / "d/f"))
    with mounted(tmp_path) as mount:
        path = str(mount.root / "d/f")
        assert before == acls_of(path)
        os.chmod(path, 0o640)
        assert build_acl(an_acl(6, 5, 0, mask=4, users={STRANGER.uid: 7})) == os.getxattr(path, ACCESS)
        with_umask(0o77, str(mount.root / "d/g"), 0o666)
        assert before == acls_of(str(mount.root / "d/g"))


def test_too_many_entries(here: Path) -> None:
    """The kernel passes no more than a page to FUSE: E2BIG, and the mode is as before."""
    path = here / "f"
    path.touch(0o640)
    named = tuple(AclEntry(Tag.USER, 4, uid) for uid in range(505))
    acl = (*an_acl(6, 4, 4)[:1], *named, *an_acl(6, 4, 4, mask=4)[1:])
    os.setxattr(path, ACCESS, build_acl(acl))
    assert build_acl(acl) == os.getxattr(path, ACCESS)
    longer = (*acl[:1], *(AclEntry(Tag.USER, 7, uid) for uid in range(600)), *acl[-3:])
    with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
        os.setxattr(path, ACCESS, build_acl(longer))
    assert build_acl(acl) == os.getxattr(path, ACCESS)
