"""`disfs fsck`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disfs.cli import progress
from disfs.cli.completion import volumes_and_mountpoints
from disfs.cli.connect import discord_access, emulator_access
from disfs.cli.secrets import interactive
from disfs.cli.unlock import volume_key
from disfs.config import Paths, load_global, load_volume, volume_names
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import mount_at, resolve
from disfs.quantities import human_count
from disfs.recovery.fsck_findings import Kind
from disfs.volume_state import VolumeLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Transport
    from disfs.cli.connect import Access
    from disfs.config import VolumeConfig
    from disfs.recovery.fsck import Check, Scope
    from disfs.recovery.fsck_data import Subset
    from disfs.recovery.fsck_repair import Repair
    from disfs.recovery.repair_right import RepairRight

_LABELS = {
    Kind.DATABASE: "database",
    Kind.METADATA: "metadata",
    Kind.CACHE: "cache",
    Kind.SEND_AGAIN: "to send again",
    Kind.DAMAGED_FILE: "damaged",
    Kind.SET_ASIDE: "set aside",
    Kind.MISSING: "missing",
    Kind.DAMAGED_PACK: "damaged pack",
    Kind.OUTBOX: "not told",
    Kind.COPY: "names in Discord",
    Kind.FORK: "elsewhere",
    Kind.SNAPSHOT: "snapshot",
    Kind.SUPERBLOCK: "superblock",
    Kind.STRAY: "left over",
    Kind.UNKNOWN: "unknown",
    Kind.IN_TRASH: "in the trash",
    Kind.NOTE: "note",
}
_OF_FILES = frozenset({Kind.DAMAGED_FILE, Kind.SEND_AGAIN, Kind.SET_ASIDE, Kind.SNAPSHOT, Kind.IN_TRASH})
_ALIKE_SHOWN = 20
"""How many findings of one kind are printed, other than files: --json has all of them."""


@click.command(short_help="Check a volume, and repair it.")
@click.argument("target", metavar="VOLUME-OR-MOUNTPOINT", shell_complete=volumes_and_mountpoints)
@click.option("--local", is_flag=True, help="Check this machine's part alone, without asking Discord.")
@click.option("--read-data", is_flag=True, help="Fetch and authenticate all contents too.")
@click.option(
    "--read-data-subset", "subset", metavar="N/T|X%", help="The N-th of T parts of them, or X percent at random."
)
@click.option("--repair", is_flag=True, help="Show what can be repaired, ask, and do it.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
@click.option(
    "--delete-unknown", is_flag=True, help="With --repair: delete messages of this volume that this machine never sent."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
def fsck(
    target: str,
    local: bool,
    read_data: bool,
    subset: str | None,
    repair: bool,
    yes: bool,
    delete_unknown: bool,
    as_json: bool,
    token_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Check that a volume holds together: its metadata, its cache, and what Discord has of it.

    Damaged files are listed by path, with what is wrong. A check changes nothing, and a mounted volume can be checked
    too; --repair needs it unmounted. A repair never deletes a file: what lost bytes goes to lost+found/damaged, and a
    copy of the metadata is kept first. It holds the volume as a mount does: while another machine has it mounted,
    nothing is repaired, unless --local says that Discord is to be left out.

    Exits with 0 when the volume is clean, 33 when everything that was found is repaired, 34 when errors are left.

    \b
    Examples:
        disfs fsck photos
        disfs fsck ~/discord --read-data-subset 1/7
        disfs fsck photos --read-data --repair
    """
    from disfs.recovery.fsck import Scope

    paths = Paths.from_environment(os.environ)
    wanted = _Wanted(local, _subset(read_data, subset), repair, yes, delete_unknown, as_json)
    _refuse_nonsense(wanted)
    volume = volume_of(paths, target)
    lock, status = _lock(paths, volume, repair=repair)
    try:
        access, key = None, None
        if not local:
            access = access_of(paths, volume, token_file)
            key = volume_key(volume, passphrase_file)
        _log_to(paths, access)
        scope = Scope(
            volume,
            paths.volume_state(volume.name),
            paths.volume_cache(volume.name),
            mounted=lock is None,
            lost_chunks=int(status.get("lost_chunks") or 0),
        )
        code = _run(scope, wanted, _Discord(access, key, repair))
    finally:
        if lock is not None:
            lock.release()
    raise click.exceptions.Exit(code)


@dataclass(frozen=True, slots=True)
class _Wanted:
    local: bool
    subset: Subset | None
    repair: bool
    yes: bool
    delete_unknown: bool
    as_json: bool


def _subset(read_data: bool, text: str | None) -> Subset | None:
    from disfs.recovery.fsck_data import ALL, parse_subset

    if text is None:
        return ALL if read_data else None
    try:
        return parse_subset(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _refuse_nonsense(wanted: _Wanted) -> None:
    if wanted.local and wanted.subset is not None:
        raise click.UsageError("--local and reading data exclude each other")
    if (wanted.yes or wanted.delete_unknown) and not wanted.repair:
        raise click.UsageError("--yes and --delete-unknown belong to --repair")
    if wanted.local and wanted.delete_unknown:
        raise click.UsageError("--local and --delete-unknown exclude each other")
    if wanted.repair and not wanted.yes and (wanted.as_json or not interactive()):
        raise click.UsageError("nobody is there to be asked; add --yes to repair without a question")


def volume_of(paths: Paths, target: str) -> VolumeConfig:
    """The volume of that name, or that is mounted there. NO_SUCH_VOLUME."""
    if target in volume_names(paths):
        return load_volume(paths, target)
    mount = mount_at(resolve(target))
    if mount is not None and mount.volume is not None and mount.volume in volume_names(paths):
        return load_volume(paths, mount.volume)
    raise UserError(
        f"{target} is neither a volume of this machine nor the mountpoint of one; 'disfs volumes' lists them",
        ExitCode.NO_SUCH_VOLUME,
    )


def _lock(paths: Paths, volume: VolumeConfig, *, repair: bool) -> tuple[VolumeLock | None, Mapping[str, Any]]:
    """The volume's lock; or None and its daemon's status. VOLUME_BUSY when it may not be mounted, or is used else."""
    directory = paths.volume_state(volume.name)
    paths.make_volume_directories(volume.name)
    try:
        return VolumeLock.acquire(directory, volume.name), {}
    except UserError as error:
        if error.exit_code != ExitCode.VOLUME_BUSY:
            raise
        try:
            with ControlClient.connect(directory) as client:
                status = client.status()
        except UserError:
            raise error from None
        if repair:
            raise UserError(
                f"volume {volume.name!r} is mounted; 'disfs umount {status.get('mountpoint')}', then repair it",
                ExitCode.VOLUME_BUSY,
            ) from error
        return None, status


def access_of(paths: Paths, volume: VolumeConfig, token_file: Path | None) -> Access:
    """The Discord of a volume, the emulator started if need be. NO_TOKEN, and as `emulator_access`."""
    if volume.emulator:
        return emulator_access(paths)
    return discord_access(load_global(paths), token_file=token_file or volume.token_file, api_url=volume.api_url)


def _log_to(paths: Paths, access: Access | None) -> None:
    from disfs import logs

    logs.set_up(paths.log_file, to_stderr=False, secrets=() if access is None else (access.token,))


@dataclass(frozen=True, slots=True)
class _Discord:
    """How to reach it; None for what is not asked."""

    access: Access | None
    key: VolumeKey | None
    repairs: bool
    """Whether anything is to be changed there, so that no other machine may have the volume meanwhile."""

    def run(self, check: Check, work: Callable[[Transport | None, RepairRight | None], Awaitable[None]]) -> None:
        """Run `work` with a connection, if there is to be one; and with the right to repair, if that is wanted.

        VOLUME_HELD when another machine has the volume.
        """
        import trio

        from disfs.chunkstore.transport.stack import open_connection
        from disfs.recovery.repair_right import right_to_repair

        async def connected() -> None:
            if self.access is None or self.key is None:
                await work(None, None)
                return
            async with open_connection(self.access.token, api_url=self.access.api_url) as connection:
                transport, scope = connection.transport, check.scope
                if not self.repairs or check.scope.mounted:
                    await work(transport, None)
                    return
                async with right_to_repair(
                    scope.volume, scope.state_directory, check.rows, transport, self.key
                ) as right:
                    await work(transport, right)

        trio.run(connected)


def _run(scope: Scope, wanted: _Wanted, discord: _Discord) -> ExitCode:
    """Check, show, and repair if that is wanted."""
    from disfs.recovery.fsck import Check
    from disfs.recovery.fsck_repair import Repair

    with Check(scope) as check:
        with progress.checking_shown() as show:
            check.on_step = show
            discord.run(check, lambda transport, _right: check.run(transport, discord.key, wanted.subset))
        report = _Report(check, as_json=wanted.as_json)
        report.show_findings()
        code = ExitCode.ERRORS_LEFT if check.findings.error_count else ExitCode.OK
        repair = Repair(check, online=discord.access is not None, delete_unknown=wanted.delete_unknown)
        if wanted.repair:
            code = _repair(check, repair, wanted, discord, report, code)
        report.end(code, repair.plan() if not wanted.repair else [])
    return code


def _repair(
    check: Check, repair: Repair, wanted: _Wanted, discord: _Discord, report: _Report, code: ExitCode
) -> ExitCode:
    plan = repair.plan()
    if not plan:
        return code
    report.show_plan(plan)
    if not wanted.yes and not click.confirm("Do this?", err=True):
        return code
    discord.run(check, lambda transport, right: repair.run(transport, right, report.show_repair))
    left = repair.errors_left()
    report.show_left(left)
    return ExitCode.ERRORS_LEFT if left else ExitCode.REPAIRED


class _Report:
    """What is printed: lines for people as they come, or one JSON object, streamed."""

    def __init__(self, check: Check, *, as_json: bool) -> None:
        self._check = check
        self._as_json = as_json
        self._repairs: list[str] = []
        self._left: list[str] = []

    def show_findings(self) -> None:
        """Print every file, and of other findings as many as people read."""
        if self._as_json:
            self._open_json()
            return
        for kind in Kind:
            shown = 0
            for finding in self._check.findings:
                if finding.kind is not kind:
                    continue
                shown += 1
                if finding.path is not None or shown <= _ALIKE_SHOWN:
                    click.echo(f"{_LABELS[kind]}: {_printable(finding.what)}")
            hidden = shown - _ALIKE_SHOWN
            if hidden > 0 and kind not in _OF_FILES:
                click.echo(f"{_LABELS[kind]}: {hidden} more like these; --json lists them")

    def _open_json(self) -> None:
        scope, totals = self._check.scope, self._check.totals
        head: dict[str, object] = {"volume": scope.volume.name, "mounted": scope.mounted, **asdict(totals)}
        head["counts"] = {kind.value: self._check.findings.counts[kind] for kind in Kind}
        click.echo(json.dumps(head)[:-1] + ', "findings": [')
        for number, finding in enumerate(self._check.findings):
            click.echo(("," if number else "") + json.dumps(finding.to_json()))
        click.echo("]", nl=False)

    def show_plan(self, plan: list[str]) -> None:
        """What a repair would do."""
        if not self._as_json:
            click.echo("the repair will:")
            for line in plan:
                click.echo(f"  - {line}")

    def show_repair(self, line: str) -> None:
        """Something was done."""
        self._repairs.append(line)
        if not self._as_json:
            click.echo(f"repaired: {_printable(line)}" if len(self._repairs) > 1 else line)

    def show_left(self, left: list[str]) -> None:
        """What a repair could not put right."""
        self._left = left
        for line in left:
            if not self._as_json:
                click.echo(f"left: {_printable(line)}")

    def end(self, code: ExitCode, possible: list[str]) -> None:
        """The last lines."""
        if self._as_json:
            tail = {
                "repaired": self._repairs,
                "errors_left": self._left,
                "repairable": possible,
                "exit_code": int(code),
            }
            click.echo(", " + json.dumps(tail)[1:])
            return
        check = self._check
        looked = [human_count(check.totals.inodes, "inode")]
        if check.totals.messages or check.totals.foreign_messages:
            looked.append(human_count(check.totals.messages, "message"))
        if check.totals.packs_read:
            looked.append(f"the contents of {human_count(check.totals.packs_read, 'pack')}")
        others = check.totals.foreign_messages
        ignored = f"; {human_count(others, 'message')} of others ignored" if others else ""
        mounted = " (mounted: what it does meanwhile is left out)" if check.scope.mounted else ""
        name = check.scope.volume.name
        click.echo(f"volume {name!r}{mounted}: {', '.join(looked)} checked{ignored}: {_verdict(check, code)}")
        if possible and code == ExitCode.ERRORS_LEFT:
            click.echo("'disfs fsck --repair' on the unmounted volume can: " + "; ".join(possible), err=True)


def _verdict(check: Check, code: ExitCode) -> str:
    if code == ExitCode.OK:
        return "clean"
    if code == ExitCode.REPAIRED:
        return "repaired"
    return human_count(check.findings.error_count, "error") + " left"


def _printable(text: str) -> str:
    """A name may hold any bytes; what a terminal would obey is not shown."""
    return "".join(char if char.isprintable() else "?" for char in text)
