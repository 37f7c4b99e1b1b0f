"""A mounted file system for the tests of this directory."""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.same_as_local import Both
from support.syscalls import failing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.mounted import Mounted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory mounts."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuse)


@pytest.fixture(autouse=True)
def known_umask() -> Iterator[None]:
    """A usual umask, whatever a test before has left."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture(scope="module", params=["sqlite", "real"])
def mount(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """One mount for the tests of a module; each test works in a directory of its own.

    Once over chunks in memory, once over the real chunk store with a cache so small that files go to a
    Discord (in memory) and come back.
    """
    with mounted(tmp_path_factory.mktemp("fuse"), parts=request.param, options=["allow_other"]) as found:
        yield found


@pytest.fixture
def both(here: Path, tmp_path: Path) -> Both:
    """A directory on the mount and one on the local disk, which has to know what is compared."""
    local = tmp_path / "local"
    local.mkdir()
    for name in ("user.test", "system.posix_acl_access"):
        if failing(partial(os.getxattr, local, name)) == errno.EOPNOTSUPP:
            pytest.skip(f"the local disk has no {name} to compare with")
    for directory in (here, local):
        directory.chmod(0o755)
    return Both(here, local)


@pytest.fixture
def here(mount: Mounted, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory on the mount."""
    directory = mount.root / str(abs(hash(request.node.nodeid)))
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)
