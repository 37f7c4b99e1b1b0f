"""gnulib's tests of the system calls, which know the differences between the kernels of forty years."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from bench.suites.base import Suite, SuiteResult, command

if TYPE_CHECKING:
    from pathlib import Path

    from bench.suites.base import Place

MODULES = (
    "rename renameat renameatu link linkat symlink symlinkat readlink readlinkat areadlink areadlinkat mkdir "
    "mkdirat mkfifo mkfifoat mknod open openat openat-safer unlink unlinkat rmdir remove stat lstat fstat fstatat "
    "utime utimens utimensat futimens chown lchown fchownat truncate ftruncate fsync fdatasync fchdir getcwd "
    "getcwd-lgpl canonicalize canonicalize-lgpl opendir fdopendir readdir scandir dirfd mkstemp mkostemp mkdtemp "
    "tmpfile copy-file dup dup2 dup3 fcntl access faccessat euidaccess statat same-inode fopen freopen fclose "
    "fflush ftell fseek fseeko lseek pread pwrite read-file fts rewinddir closedir stdio flock fchmodat lchmod "
    "acl-permissions qcopy-acl file-has-acl supersede tempname file-set savewd openat-die hash xgetcwd stat-size "
    "stat-time fsusage mountlist backupfile"
)
_SKIPPED = 77
BUILD_SECONDS = 1800
TEST_SECONDS = 1800
"""One of them makes 65,000 directories, looks at them and removes them: minutes, on a busy machine many."""


def run(place: Place) -> SuiteResult:
    """Build once, on the local disk; copy the programs to the mount, run each there."""
    tree = place.downloads / "gnulib"
    names = _built(tree)
    if not names:
        return SuiteResult(0, ("the build",), details=(tree / "log").read_text()[-3000:])
    work = place.files / "gltests"
    shutil.copytree(tree / "build" / "gltests", work, symlinks=True, ignore=shutil.ignore_patterns("*.o", "*.trs"))
    answers: dict[str, str | None] = {}
    skipped = 0
    source = tree / "td" / "gltests"
    extra = _environment(work) | {"srcdir": str(source), "TMPDIR": str(place.files)}
    for name in names:
        words = ("bash", source / name) if name.endswith(".sh") else (f"./{name}",)
        done = command(*words, cwd=work, extra=extra, timeout=TEST_SECONDS)
        if done.code == _SKIPPED:
            skipped += 1
        else:
            answers[name] = done.wrong()
    return SuiteResult.of(answers, skipped)


def _environment(build: Path) -> dict[str, str]:
    """What `make check` tells the tests: no locales, and whether they were built with ACLs."""
    makefile = (build / "Makefile").read_text()
    found = re.search(r"^USE_ACL = (.*)$", makefile, re.MULTILINE)
    locales = dict.fromkeys(re.findall(r"\bLOCALE_\w+", makefile), "none")
    return locales | {"USE_ACL": found[1] if found else "0", "EXEEXT": "", "MAKE": "make"}


def _built(tree: Path) -> list[str]:
    """Build the tests unless they are there; the names of all that pass on the local disk."""
    if not (tree / "passed").exists():
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "build").mkdir(parents=True)
        words = ("gnulib-tool", "--create-testdir", "--dir=td", "--single-configure", "--without-privileged-tests")
        log = command(*words, *MODULES.split(), cwd=tree, timeout=BUILD_SECONDS).output
        for step in (("../td/configure", "-q"), ("make", "-s", "-j2"), ("make", "-s", "check")):
            extra = {"FORCE_UNSAFE_CONFIGURE": "1"}
            log += command(*step, cwd=tree / "build", extra=extra, timeout=BUILD_SECONDS).output
        (tree / "log").write_text(log)
        reports = sorted((tree / "build" / "gltests").glob("*.trs"))
        passed = [report.stem for report in reports if ":test-result: PASS" in report.read_text()]
        (tree / "passed").write_text("\n".join(passed))
    return (tree / "passed").read_text().split()


SUITES = (Suite("gnulib", "gnulib's tests of system calls", run, ("gnulib", "gcc", "make", "autoconf", "automake")),)
