"""What mount(8) and fstab make of disfs: `mount.disfs`, its options, and its exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from disfs.cli import mount_helper
from disfs.cli.commands import disfs
from disfs.cli.mount_helper import become, serve, understood
from disfs.errors import ExitCode, UserError
from disfs.mount_options import Shown, parse_options

if TYPE_CHECKING:
    from support.home import Home

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    line.split()
    for block in re.findall(r"```fstab\n(.*?)```", (ROOT / "docs" / "system.md").read_text(), re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]


def options_of(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What `disfs mount` would be asked for, checked by click itself."""
    command = disfs.commands["mount"]
    context = command.make_context("mount", list(arguments[1:]), resilient_parsing=False)
    return {name: value for name, value in context.params.items() if value}


def test_there_are_examples() -> None:
    """The documentation has lines for fstab, so the test below has something to check."""
    assert 3 <= len(EXAMPLES)


@pytest.mark.parametrize("fields", EXAMPLES, ids=lambda fields: fields[1])
def test_documented_lines_of_fstab_are_understood(fields: list[str]) -> None:
    """Each example has fstab's six fields, and all its options mean something."""
    source, directory, kind, options, dump, check = fields
    assert ("disfs", "0", "0") == (kind, dump, check)
    request = understood([source, directory, "-o", f"{options},rw"])
    asked = options_of(request.arguments)
    assert directory == asked["mountpoint"]
    assert source.removeprefix("disfs:") == asked.get("name", "none")
    parse_options(tuple(asked.get("options", ())))


def test_options_go_where_they_belong() -> None:
    """What names the volume, the secrets and the user is taken out; everything else is for -o, and -r comes last."""
    options = "rw,_netdev,token_file=/etc/my\\040token,volume=photos,setuid=joe,home=/srv/disfs,cache_size=1G"
    request = understood(["disfs:other", "/mnt", "-s", "-v", "-n", "-r", "-t", "disfs", "-o", options])
    assert ("joe", (("DISFS_HOME", "/srv/disfs"),), False) == (request.user, request.environment, request.is_fake)
    asked = options_of(request.arguments)
    assert ("photos", "/mnt", "/etc/my token") == (asked["name"], asked["mountpoint"], str(asked["token_file"]))
    assert ("rw,_netdev,cache_size=1G,ro",) == asked["options"]


@pytest.mark.parametrize("source", ["none", "disfs", "disfs:", "disfs:none"])
def test_no_volume_means_the_only_one(source: str) -> None:
    """What people write for no device leaves the choice to `disfs mount`."""
    assert "name" not in options_of(understood([source, "/mnt"]).arguments)


@pytest.mark.parametrize("arguments", [[], ["photos"], ["photos", "/mnt", "more"], ["photos", "/mnt", "-q"]])
def test_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is one line, and mount's exit code for that."""
    assert mount_helper.MOUNT_USAGE == serve(arguments)
    assert 1 == capsys.readouterr().err.count("\n")


def test_fake_mount_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mount -f` reads the options and mounts nothing."""
    monkeypatch.setattr("disfs.cli.exits.run", None)
    assert mount_helper.MOUNT_OK == serve(["photos", "/mnt", "-f", "-o", "ro"])


@pytest.mark.parametrize(
    ("code", "reported"),
    [
        (ExitCode.OK, 0),
        (ExitCode.USAGE, 1),
        (ExitCode.FUSE_UNAVAILABLE, 2),
        (ExitCode.INTERNAL, 4),
        (130, 8),
        (ExitCode.NO_SUCH_VOLUME, 32),
        (ExitCode.VOLUME_HELD, 32),
    ],
)
def test_exit_codes_are_those_of_mount(monkeypatch: pytest.MonkeyPatch, code: int, reported: int) -> None:
    """What `disfs mount` exits with becomes what mount(8) documents."""
    monkeypatch.setattr("disfs.cli.exits.run", lambda *_: code)
    assert reported == serve(["photos", "/mnt"])


def test_unknown_user() -> None:
    """setuid= with nobody's name is refused."""
    with pytest.raises(UserError, match="no such user"):
        become("no-such-user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_daemon_runs_as_the_named_user() -> None:
    """setuid= gives up root for good, and the home is that user's."""
    script = (
        "import os; from disfs.cli.mount_helper import become; become('daemon'); "
        "print(os.getresuid(), os.getresgid(), os.environ['HOME'], 'XDG_STATE_HOME' in os.environ)"
    )
    environment = os.environ | {"XDG_STATE_HOME": "/root"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "(1, 1, 1) (1, 1, 1) /usr/sbin False" == done.stdout.strip()


# Owners and modes that are shown


def test_owner_and_umask_are_read() -> None:
    """Numbers for uid and gid, octal for umask; ACLs are off, as they would say otherwise."""
    parsed = parse_options(("uid=1000,gid=0,umask=027",))
    assert Shown(1000, 0, 0o750) == parsed.behaviour.shown
    assert (("has_acls", False),) == parsed.changes
    assert parse_options(("ro",)).behaviour.shown is None


@pytest.mark.parametrize("word", ["uid=joe", "gid=-1", "uid=4294967295", "umask=9", "umask=-1", "umask=1777", "uid="])
def test_owner_or_umask_that_is_none(word: str) -> None:
    """What is no id or mask is refused."""
    with pytest.raises(UserError, match="-o") as caught:
        parse_options((word,))
    assert ExitCode.USAGE == caught.value.exit_code


def test_acls_and_a_shown_owner_exclude_one_another() -> None:
    """Who asks for both is told to choose."""
    with pytest.raises(UserError, match="excludes"):
        parse_options(("acl,uid=5",))


# The real mount(8)

MOUNT = """
set -e
mount -t tmpfs none {scratch}
mkdir {scratch}/upper {scratch}/work
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={scratch}/upper,workdir={scratch}/work /usr/sbin
ln -s {helper} /usr/sbin/mount.disfs
ln -s {helper} /usr/sbin/mount.fuse.disfs
mount -t disfs disfs:{volume} {directory} -o _netdev,noauto,nofail,x-systemd.automount,user=root,uid=12,umask=077
echo seen > {directory}/file
stat -c '%u %A' {directory}/file
umount {directory}
while [ -e {socket} ]; do sleep 0.05; done
mount -t fuse.disfs disfs:{volume} {directory} -o ro
cat {directory}/file
umount {directory}
while [ -e {socket} ]; do sleep 0.05; done
mount -t disfs disfs:nosuch {directory} || echo exit $?
"""


@pytest.mark.fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give mount(8) a helper")
def test_mount_finds_and_runs_the_helper(home: Home, tmp_path: Path) -> None:
    """`mount -t disfs` and `mount -t fuse.disfs` mount a volume with options of fstab; a failure is exit code 32."""
    if not Path("/usr/sbin").samefile("/sbin") or shutil.which("unshare") is None:
        pytest.skip("mount(8) looks for helpers elsewhere, or there is no unshare")
    home.ok("init", volume := f"f{os.getpid()}")
    helper = tmp_path / "mount.disfs"
    helper.write_text(f"#!{sys.executable}\nfrom disfs.cli.mount_helper import main\nmain()\n")
    helper.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    socket = home.root / "state" / "volumes" / volume / "control.sock"
    script = MOUNT.format(
        scratch=tmp_path / "scratch", helper=helper, volume=volume, directory=home.mountpoint, socket=socket
    )
    # A mount namespace of its own: what is put into /sbin is seen nowhere else, and goes with it.
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        env=home.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "overlay" in done.stderr:
        pytest.skip(f"no overlay can be mounted here: {done.stderr}")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("volume ")]
    assert ["12 -rwx------", "seen", "exit 32"] == lines, done.stderr
    assert "there is no volume 'nosuch'" in done.stderr
