"""Installs what a suite needs, when it is missing: Debian packages, and a virtual environment for Python's."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from bench.suites.base import command

if TYPE_CHECKING:
    from collections.abc import Sequence


class InstallError(Exception):
    """Something that a suite needs cannot be installed; the text has what the package manager printed."""


def kept_directory() -> Path:
    """Where environments and built programs stay from run to run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "disfs-suites"


def install_debian(packages: Sequence[str]) -> None:
    """Install the packages that are not installed; elsewhere than on Debian they are taken to be. `InstallError`."""
    if shutil.which("dpkg-query") is None:
        return
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        return
    words = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    extra = {"DEBIAN_FRONTEND": "noninteractive"}
    if command(*words, extra=extra).code == 0:
        return
    command("apt-get", "update", "-q")
    done = command(*words, extra=extra)
    if done.code != 0:
        raise InstallError(f"apt-get install {' '.join(missing)}: {done.tail()}")


def _is_installed(package: str) -> bool:
    done = command("dpkg-query", "-W", "-f", "${db:Status-Status}", package)
    return done.code == 0 and done.output == "installed"


def python_with(packages: Sequence[str], kept: Path) -> str:
    """An interpreter that has these packages; ours when there are none to install. `InstallError`."""
    if not packages:
        return sys.executable
    directory = kept / f"venv-{hashlib.sha256(' '.join(sorted(packages)).encode()).hexdigest()[:16]}"
    python, stamp = directory / "bin" / "python", directory / "complete"
    if not stamp.exists():
        venv.create(directory, clear=True, with_pip=True)
        done = command(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
        if done.code != 0:
            raise InstallError(f"pip install {' '.join(packages)}: {done.tail()}")
        stamp.touch()
    return str(python)
