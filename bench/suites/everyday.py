"""What people do with a disk all day, with the programs they do it with; results are compared with the local disk's.

The checks are Bash and stand in `everyday.bash`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.suites.base import Suite, scripts

if TYPE_CHECKING:
    from bench.suites.base import Place, SuiteResult

_FILE = Path(__file__).with_name("everyday.bash")
_QUICK = " (quick)"
_CHECK_SECONDS = 120.0


def checks() -> list[tuple[str, str]]:
    """Names and scripts; the names of the quick ones end with `(quick)`."""
    preparation, *sections = re.split(r"^# == ", _FILE.read_text(), flags=re.MULTILINE)
    pairs = (section.split("\n", 1) for section in sections)
    return [(name, preparation + script) for name, script in pairs]


def run(place: Place) -> SuiteResult:
    """All checks."""
    return scripts(place, ((name.removesuffix(_QUICK), script) for name, script in checks()), _CHECK_SECONDS)


def run_quick(place: Place) -> SuiteResult:
    """Those that need few packages and little time."""
    return scripts(place, (check for check in checks() if check[0].endswith(_QUICK)), _CHECK_SECONDS)


_QUICK_DEBIAN = ("git", "rsync", "sqlite3", "attr", "acl", "gcc", "make", "zip", "unzip")
_DEBIAN = (*_QUICK_DEBIAN, "bzip2", "xz-utils", "cpio", "patch", "inotify-tools", "gdbmtool", "python3-venv")
SUITES = (
    Suite("everyday", "everyday programs, compared with the local disk", run, _DEBIAN),
    Suite("everyday-quick", "some of them", run_quick, _QUICK_DEBIAN),
)
