"""Suites of Python libraries that abstract file systems: PyFilesystem2, fsspec, pyfakefs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites.base import Suite, SuiteResult, command
from bench.suites.cpython import read_junit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.suites.base import Place

PYFILESYSTEM = """
import os, shutil, tempfile, unittest
from fs.osfs import OSFS
from fs.test import FSTestCases

class TestOSFS(FSTestCases, unittest.TestCase):
    def make_fs(self):
        return OSFS(tempfile.mkdtemp(dir=os.environ["TMPDIR"]))
    def destroy_fs(self, fs):
        fs.close()
        shutil.rmtree(fs.root_path)
"""
FSSPEC = """
import os, pytest
from fsspec.implementations.local import LocalFileSystem, make_path_posix
from fsspec.tests.abstract import AbstractCopyTests, AbstractFixtures, AbstractGetTests, AbstractPutTests

class Fixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self):
        return LocalFileSystem(auto_mkdir=True)
    @pytest.fixture
    def fs_path(self, tmpdir):
        return str(tmpdir)
    @pytest.fixture
    def local_fs(self):
        return LocalFileSystem(auto_mkdir=True)

class TestCopy(AbstractCopyTests, Fixtures): pass
class TestGet(AbstractGetTests, Fixtures): pass
class TestPut(AbstractPutTests, Fixtures): pass
"""
FAKEFS_MODULES = ("os", "open", "pathlib", "tempfile", "filesystem_shutil")
_AS_ROOT = "fails on a local disk too when root runs it: it expects a permission to be refused"
FAKEFS_KNOWN = (
    "test_catch_permission_error",
    "test_permission_error_message",
    "test_rmtree_without_permission_for_a_dir_in_posix",
    "test_raises_if_dest_dir_is_not_writable_under_posix",
    "test_raises_if_dest_exists_and_is_not_writable",
    "test_raises_if_src_not_readable",
)


def run_pyfilesystem(place: Place) -> SuiteResult:
    """Their contract for every file system, on the one that is the operating system's."""
    return _run_source(place, PYFILESYSTEM)


def run_fsspec(place: Place) -> SuiteResult:
    """Their contract of copy, get and put, on the local file system."""
    return _run_source(place, FSSPEC)


def run_pyfakefs(place: Place) -> SuiteResult:
    """The tests with which they compare their fake with a real file system."""
    where = command(place.python, "-c", "import pyfakefs.tests; print(pyfakefs.tests.__path__[0])").output.strip()
    modules = [f"{where}/fake_{name}_test.py" for name in FAKEFS_MODULES]
    return _pytest(place, [*modules, "-k", "Real"])


def _run_source(place: Place, source: str) -> SuiteResult:
    path = place.scratch / "test_contract.py"
    path.write_text(source)
    return _pytest(place, [str(path)])


def _pytest(place: Place, arguments: Sequence[str]) -> SuiteResult:
    report = place.scratch / "report.xml"
    extra = {"TMPDIR": str(place.files), "TEST_REAL_FS": "1"}
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={place.files}/pytest", f"--junitxml={report}")
    done = command(place.python, *words, *arguments, cwd=place.scratch, extra=extra)
    if not report.exists():
        return SuiteResult(0, ("pytest",), details=done.tail(30))
    return read_junit(report)


SUITES = (
    Suite(
        "pyfilesystem2",
        "PyFilesystem2's FSTestCases on OSFS",
        run_pyfilesystem,
        pypi=("fs==2.4.16", "setuptools<81", "pytest"),
    ),
    Suite("fsspec", "fsspec's abstract copy, get and put tests", run_fsspec, pypi=("fsspec", "pytest", "pandas")),
    Suite(
        "pyfakefs",
        "pyfakefs' tests against a real file system",
        run_pyfakefs,
        pypi=("pyfakefs==6.3.2", "pytest"),
        known=dict.fromkeys(FAKEFS_KNOWN, _AS_ROOT),
    ),
)
