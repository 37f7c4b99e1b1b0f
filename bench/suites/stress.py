"""stress-ng's file system stressors, which check what they read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites.base import Suite, SuiteResult, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.suites.base import Place

# Not `io`: it syncs the mounts of others.
STRESSORS = (
    "access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap file-ioctl"
    " filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify iomix lease link locka lockf lockofd"
    " mknod open rename seek symlink sync-file touch utime xattr aio aiol readahead revio mmap msync sendfile splice"
    " fault"
)
QUICK_STRESSORS = "chmod dentry dir link rename xattr"
_NOT_POSSIBLE = (3, 4)
"""What stress-ng exits with when the machine or the file system lacks something that it needs."""
KNOWN = {"fsize": "it extends files with fallocate, which pyfuse3 does not pass"}


def run(place: Place) -> SuiteResult:
    """Three seconds of each."""
    return _run(place, STRESSORS.split(), 3)


def run_quick(place: Place) -> SuiteResult:
    """One second of those that are most about names."""
    return _run(place, QUICK_STRESSORS.split(), 1)


def _run(place: Place, stressors: Sequence[str], seconds: int) -> SuiteResult:
    answers: dict[str, str | None] = {}
    skipped = 0
    for stressor in stressors:
        words = ("stress-ng", f"--{stressor}", "2", "--timeout", f"{seconds}s", "--verify", "--temp-path", place.files)
        done = command(*words, cwd=place.scratch, timeout=120)
        if done.code in _NOT_POSSIBLE and " fail:" not in done.output:
            skipped += 1
        else:
            failed = done.code != 0 or " fail:" in done.output
            answers[stressor] = done.tail() if failed else None
    return SuiteResult.of(answers, skipped)


SUITES = (
    Suite("stress-ng", "stress-ng's file stressors with --verify", run, ("stress-ng",), known=KNOWN),
    Suite("stress-ng-quick", "a second of some of them", run_quick, ("stress-ng",)),
)
