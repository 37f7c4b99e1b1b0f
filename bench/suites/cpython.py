"""The file tests of CPython itself, as Debian packages them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from bench.suites.base import Suite, SuiteResult, command

if TYPE_CHECKING:
    from pathlib import Path

    from bench.suites.base import Place

# Left out because they fail on a local disk too: test_compileall (2 cases), test_sqlite3 (not packaged).
MODULES = (
    "test_os test_shutil test_tempfile test_pathlib test_posix test_mmap test_fileio test_file test_bufio"
    " test_largefile test_tarfile test_zipfile test_glob test_fcntl test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm"
    " test_shelve test_mailbox test_stat test_genericpath test_posixpath test_filecmp test_linecache test_fileinput"
    " test_gzip test_zipapp test_zipimport test_runpy test_unicode_file test_unicode_file_functions test_univnewlines"
    " test_threadedtempfile test_io"
)
QUICK_MODULES = "test_fileio test_file test_glob test_genericpath test_posixpath test_filecmp test_dbm_dumb"
MODULE_SECONDS = 600
"""For one of them. test_largefile writes gigabytes, and takes several times as long beside other load."""
SUITE_SECONDS = 2400.0
PYTHON = "/usr/bin/python3.11"
DEBIAN = ("libpython3.11-testsuite", "python3-gdbm")


def run(place: Place) -> SuiteResult:
    """All modules that have to do with files."""
    return _run(place, MODULES.split())


def run_quick(place: Place) -> SuiteResult:
    """Those that take seconds."""
    return _run(place, QUICK_MODULES.split())


def _run(place: Place, modules: list[str]) -> SuiteResult:
    report = place.scratch / "report.xml"
    words = ("-m", "test", "-j2", "--timeout", f"{MODULE_SECONDS}", "-u", "largefile", "-v")
    paths = (f"--tempdir={place.files}", f"--junit-xml={report}")
    extra = {"TMPDIR": str(place.files)}
    done = command(PYTHON, *words, *paths, *modules, cwd=place.scratch, extra=extra, timeout=SUITE_SECONDS)
    if not report.exists():
        return SuiteResult(0, ("CPython's test program",), details=done.tail())
    result = read_junit(report)
    if done.code != 0 and not result.failures:
        # A module that crashed or ran out of time has no test cases in the report.
        return SuiteResult(result.passed, ("CPython's test program",), result.skipped, done.tail(40))
    return result


def read_junit(report: Path) -> SuiteResult:
    """What a report in JUnit's format says."""
    answers: dict[str, str | None] = {}
    skipped = 0
    # The report was written by a program that this suite started.
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - see the line above, it is our own report
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        wrong = [child for child in case if child.tag in {"failure", "error"}]
        if wrong:
            answers[name] = "\n".join([wrong[0].get("message") or "", *(wrong[0].text or "").splitlines()[-6:]])
        elif any(child.tag == "skipped" for child in case):
            skipped += 1
        else:
            answers.setdefault(name, None)
    return SuiteResult.of(answers, skipped)


SUITES = (
    Suite("cpython", "CPython's own tests of os, shutil, pathlib, mmap, tarfile, dbm and so on", run, DEBIAN),
    Suite("cpython-quick", "the quick ones of them", run_quick, DEBIAN),
)
