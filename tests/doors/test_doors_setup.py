"""The guided set-up: from nothing to a mounted volume, whatever goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from support.home import home as home_in
from support.rest_client import RestClient
from support.terminal import terminal

from disfs.chunkstore.transport.permissions import NEEDED, Permission
from disfs.cli import guide, setup
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.cli.making import make_volume
from disfs.cli.passphrases import WORDS, make_passphrase
from disfs.config import Paths, load_global, load_volume
from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.emulator import Emulator

    from disfs.cli.setup import Outcome

OWN = "a passphrase of my own"


@pytest.fixture(autouse=True)
def guild(discord: Emulator) -> Iterator[Emulator]:
    """A guild without channels, in which everything that a test changes is put back."""
    for channel in list_channels(discord):
        RestClient(discord)("DELETE", f"/channels/{channel['id']}")
    yield discord
    discord.settings(in_guild=True, permissions=(1 << 50) - 1, denied={}, token_revoked=False)
    discord.clear_faults()


class Person:
    """Somebody with an empty home who types `lines` at `disfs setup`; nothing is mounted."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, discord: Emulator) -> None:
        self.home = directory / "home"
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir(exist_ok=True)
        self.paths = Paths.from_environment({"DISFS_HOME": str(self.home)})
        self.outcome: Outcome | None = None
        for name in list(os.environ):
            if name.startswith("DISFS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("DISFS_HOME", str(self.home))
        monkeypatch.setenv("DISFS_API_URL", discord.api_url)
        monkeypatch.setattr(setup, "interactive", lambda: True)
        monkeypatch.setattr(setup, "check_fuse", lambda _: None)
        monkeypatch.setattr(setup, "mount_it", self._mount)

    def _mount(self, outcome: Outcome, _options: list[str]) -> None:
        self.outcome = outcome

    def does(self, *lines: str, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
        """Type these lines; the exit code and what was shown. The input ends after them, as by Ctrl-D."""
        runner = CliRunner()
        codes = []
        with runner.isolation(input="".join(f"{line}\n" for line in lines)) as (_, stderr, _):
            codes.append(run(disfs, ["setup", str(self.mountpoint), *arguments]))
            shown = stderr.getvalue().decode()
        return codes[0], shown


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, discord: Emulator) -> Person:
    return Person(tmp_path, monkeypatch, discord)


def answers(discord: Emulator, name: str, *, keep: str = "y") -> list[str]:
    """What makes a volume: the place, the token, the name, yes, an own passphrase twice, whether to keep it."""
    return ["1", discord.token, name, "y", "2", OWN, OWN, keep]


def test_volume_is_made_and_later_mounts_ask_nothing(person: Person, discord: Emulator) -> None:
    """At the end token and passphrase are kept, readable for their owner alone, and the mount knows what to do."""
    code, shown = person.does(*answers(discord, "kept"))
    assert 0 == code, shown
    assert person.outcome is not None
    assert ("kept", person.mountpoint, None) == (
        person.outcome.volume,
        person.outcome.mountpoint,
        person.outcome.passphrase,
    )
    assert discord.token == load_global(person.paths).token
    kept = load_volume(person.paths, "kept").passphrase_file
    assert kept is not None
    assert OWN == kept.read_text().strip()
    for file in (kept, person.paths.config_file):
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert discord.token not in shown
    assert OWN not in shown


def test_passphrase_that_is_not_kept_goes_to_the_mount_alone(person: Person, discord: Emulator) -> None:
    """Who does not want it on the disk finds it nowhere there."""
    code, shown = person.does(*answers(discord, "asked", keep="n"))
    assert 0 == code, shown
    assert person.outcome is not None
    assert OWN == person.outcome.passphrase
    assert all(OWN.encode() not in file.read_bytes() for file in person.home.rglob("*") if file.is_file())


def test_made_up_passphrase_must_be_typed_back(person: Person, discord: Emulator) -> None:
    """What is shown and typed in another way is not taken; Ctrl-D then leaves nothing."""
    code, shown = person.does("1", discord.token, "typed", "y", "1", "something else")
    assert 130 == code
    assert "not the same" in shown
    assert 6 == max(line.count("-") for line in shown.splitlines())


def test_made_up_passphrases_are_long_and_typeable() -> None:
    """Seven of at least 512 different words make 63 bits; every word is a few lower-case letters."""
    assert len(set(WORDS)) == len(WORDS) >= 512
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 7 for word in WORDS)
    made = make_passphrase()
    assert 7 == len(made.split("-"))
    assert made != make_passphrase()


def test_short_passphrase_is_refused(person: Person, discord: Emulator) -> None:
    """What can be guessed is not taken, nor one that was typed in two ways; then it goes on."""
    lines = [*answers(discord, "short")[:5], "short", OWN, "another", OWN, OWN, "y"]
    code, shown = person.does(*lines)
    assert 0 == code, shown
    assert "easily guessed" in shown
    assert "the two are not the same" in shown


@pytest.mark.parametrize("typed", range(8))
def test_ending_it_before_the_last_answer_leaves_nothing(person: Person, discord: Emulator, typed: int) -> None:
    """Whichever question it is: no file here, no channel there, and it says so."""
    before = discord.counts().get("create_channel", 0)
    code, shown = person.does(*answers(discord, "given-up")[: min(typed, 7)])
    assert 130 == code
    assert "nothing was made or kept" in shown
    assert [] == [file for file in person.home.rglob("*") if file.is_file()]
    assert before == discord.counts().get("create_channel", 0)


def test_directory_that_was_made_goes_with_the_rest(person: Person, discord: Emulator) -> None:
    """Ending it after the mountpoint was made takes that away again, and what is there already is not touched."""
    person.mountpoint.rmdir()
    code, shown = person.does(*answers(discord, "given-up")[:7], "y")
    assert (130, False) == (code, person.mountpoint.exists())
    assert "Make it?" in shown
    person.mountpoint.mkdir()
    person.does(*answers(discord, "given-up")[:7])
    assert person.mountpoint.exists()


def test_directory_that_cannot_be_made_is_asked_for_again(person: Person, discord: Emulator, tmp_path: Path) -> None:
    """A file in the way, then a directory that is not empty: another one is asked for."""
    person.mountpoint.rmdir()
    (tmp_path / "file").touch()
    person.mountpoint = tmp_path / "file" / "below"
    lines = [*answers(discord, "moved")[:7], "y", str(tmp_path), str(tmp_path / "new"), "y", "y"]
    code, shown = person.does(*lines)
    assert 0 == code, shown
    assert "Not a directory; choose another" in shown
    assert "is not empty" in shown
    assert person.outcome is not None
    assert tmp_path / "new" == person.outcome.mountpoint


def test_wrong_token_is_asked_for_again(person: Person, discord: Emulator) -> None:
    """Discord's refusal is told and the next token counts, which alone is kept."""
    lines = answers(discord, "wrong-token")
    code, shown = person.does(lines[0], "not a token", "another.wrong.one", *lines[1:])
    assert 0 == code, shown
    assert "characters that no token has" in shown
    assert "Discord rejects the bot token" in shown
    assert discord.token == load_global(person.paths).token


def test_rejected_token_of_the_environment_ends_it(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever were typed in: the mount would take the one of DISFS_TOKEN again."""
    monkeypatch.setenv("DISFS_TOKEN", "wrong")
    code, _ = person.does("1", discord.token)
    assert ExitCode.TOKEN_REJECTED == code


def test_invitation_is_shown_until_it_was_followed(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot that is in no server gets a link of its own, and each Enter looks again."""
    discord.settings(in_guild=False)
    on_enter(monkeypatch, lambda: discord.settings(in_guild=True), after=2)
    code, shown = person.does(*answers(discord, "invited"))
    assert 0 == code, shown
    link = f"&scope=bot&permissions={int(NEEDED)}"
    assert 109584 == NEEDED
    assert 2 == shown.count(link)
    assert "the bot is in no server yet" in shown


def test_missing_permission_is_named_until_it_is_there(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are missing are named, and no others, with the server."""
    discord.settings(permissions=NEEDED & ~(Permission.ATTACH_FILES | Permission.MANAGE_CHANNELS))
    on_enter(monkeypatch, lambda: discord.settings(permissions=int(NEEDED)))
    code, shown = person.does(*answers(discord, "permitted"))
    assert 0 == code, shown
    (line,) = (line for line in shown.splitlines() if "lacks" in line)
    assert line.endswith("in the server 'Emulated guild' the bot lacks the permissions Manage Channels, Attach Files")


def test_channel_that_denies_something_is_named(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel's own settings can take away what the bot has in the server."""

    def make_and_deny(*arguments: Any) -> Any:
        placed = make_volume(*arguments)
        (channel,) = (each for each in list_channels(discord) if each["name"] == "data-2")
        discord.settings(permissions=int(NEEDED), denied={channel["id"]: int(Permission.SEND_MESSAGES)})
        return placed

    monkeypatch.setattr(guide, "make_volume", make_and_deny)
    on_enter(monkeypatch, lambda: discord.settings(denied={}))
    code, shown = person.does(*answers(discord, "denied"))
    assert 0 == code, shown
    assert "in the channel #data-2 the bot lacks the permission Send Messages" in shown


def test_channel_that_cannot_be_read_is_opened_before_anything_is_sent(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of that name may be in there: nothing is written beside it, and its data are found afterwards."""
    rest = RestClient(discord)
    made = {"name": "disfs hidden", "type": 4}
    category = rest("POST", f"/guilds/{discord.guild_id}/channels", made).json["id"]
    made = {"name": "index", "parent_id": category}
    index = rest("POST", f"/guilds/{discord.guild_id}/channels", made).json["id"]
    discord.settings(permissions=int(NEEDED), denied={index: int(Permission.READ_MESSAGE_HISTORY)})
    before = discord.counters()["messages"]

    def open_it() -> None:
        assert before == discord.counters()["messages"]
        discord.settings(denied={})

    on_enter(monkeypatch, open_it)
    code, shown = person.does(*answers(discord, "hidden"))
    assert 0 == code, shown
    assert "in the channel #index the bot lacks the permission Read Message History" in shown


def test_interrupted_set_up_is_finished_by_the_next(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the superblock was sent: it says how to go on, and the same name and passphrase do."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("disfs.cli.making._keep", interrupted)
        code, shown = person.does(*answers(discord, "half"))
    assert 130 == code
    assert "may hold a part of volume 'half'; 'disfs setup' finds it" in shown
    assert not person.paths.passphrase_file("half").exists()
    code, shown = person.does("1", discord.token, "1", OWN, "y")
    assert 0 == code, shown
    assert "finish the volume 'half'" in shown
    assert "half" == load_volume(person.paths, "half").name


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "names"),
    [
        ((), {}, ExitCode.NO_TOKEN, "--token-file"),
        ((), {"DISFS_TOKEN": "right"}, ExitCode.NO_PASSPHRASE, "--passphrase-file"),
        ((), {"DISFS_TOKEN": "wrong", "DISFS_PASSPHRASE": OWN}, ExitCode.TOKEN_REJECTED, "token"),
        (("--guild", "77"), {"DISFS_TOKEN": "right", "DISFS_PASSPHRASE": OWN}, ExitCode.UNKNOWN_GUILD, "77"),
        (("--name", "a b"), {}, ExitCode.USAGE, "a b"),
    ],
)
def test_without_a_terminal_nothing_is_asked(
    person: Person,
    discord: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    names: str,
) -> None:
    """One line says what is missing and which option or variable gives it."""
    monkeypatch.setattr(setup, "interactive", lambda: False)
    monkeypatch.setattr("disfs.cli.secrets.interactive", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, discord.token if value == "right" else value)
    found, shown = person.does(arguments=arguments)
    assert code == found, shown
    assert 1 == len(shown.splitlines())
    assert names in shown


def test_without_a_terminal_all_can_be_said(
    person: Person, discord: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Options and files are enough."""
    monkeypatch.setattr(setup, "interactive", lambda: False)
    (tmp_path / "token").write_text(discord.token + "\n")
    (tmp_path / "passphrase").write_text(OWN + "\n")
    for file in tmp_path.glob("*[ne]"):
        if file.is_file():
            file.chmod(0o600)
    given = ("--name", "scripted", "--channels", "2", "--token-file", str(tmp_path / "token"))
    code, shown = person.does(arguments=(*given, "--passphrase-file", str(tmp_path / "passphrase")))
    assert 0 == code, shown
    volume = load_volume(person.paths, "scripted")
    assert 2 == len(volume.superblock.data_channels)
    assert tmp_path / "token" == volume.token_file


@pytest.mark.fuse
def test_terminal_from_nothing_to_a_mounted_guild(person: Person, discord: Emulator, tmp_path: Path) -> None:
    """`disfs mount` where nothing is set up: through all steps at a real terminal, to files on the mount.

    A second machine, which knows nothing but the token, is offered the volume, and opens it with its passphrase alone.
    """
    discord.settings(in_guild=False, permissions=int(NEEDED & ~Permission.SEND_MESSAGES))
    with home_in(tmp_path / "first", discord) as home:
        home.mountpoint.rmdir()
        home.environment = {k: v for k, v in home.environment.items() if k not in ("DISFS_TOKEN", "DISFS_PASSPHRASE")}
        with terminal(home.environment, "mount", str(home.mountpoint), "--cache-size", "64M") as screen:
            screen.expect("Which?")
            screen.type("1")
            screen.expect("Bot token")
            screen.type("wrong")
            screen.expect("rejects the bot token")
            screen.expect("Bot token")
            screen.type(discord.token)
            screen.expect("&permissions=109584")
            discord.settings(in_guild=True)
            screen.type()
            screen.expect("lacks the permission Send Messages")
            discord.settings(permissions=int(NEEDED))
            screen.type()
            screen.expect("Name of the new volume")
            screen.type("terminal")
            screen.expect("Shall it be so?")
            screen.type()
            screen.expect("Which passphrase?")
            screen.type("1")
            screen.expect("then type it")
            passphrase = next(line.strip() for line in screen.text.splitlines() if 6 == line.count("-"))
            screen.type(passphrase)
            screen.expect("Make it?")
            screen.type()
            screen.expect("Keep it?")
            screen.type("n")
            assert 0 == screen.ended(), screen.text
        assert discord.token not in screen.shown
        (home.mountpoint / "file").write_text("content")
        assert 64 << 20 == home.status()["cache_limit_bytes"]
        home.ok("umount", str(home.mountpoint))
    token_file = tmp_path / "token"
    token_file.write_text(discord.token)
    token_file.chmod(0o600)
    code, shown = person.does("1", "wrong", passphrase, "y", arguments=("--token-file", str(token_file)))
    assert 0 == code, shown
    assert "bring the volume 'terminal'" in shown
    assert "does not open volume" in shown
    assert (person.paths.volume_state("terminal") / "metadata.db").exists()
    assert token_file == load_volume(person.paths, "terminal").token_file


@pytest.mark.fuse
def test_terminal_from_nothing_to_a_mounted_emulator(tmp_path: Path) -> None:
    """Without an account: two answers from an empty home to files on the mount; Ctrl-C before leaves nothing."""
    with home_in(tmp_path) as home:
        home.mountpoint.rmdir()
        del home.environment["DISFS_PASSPHRASE"]
        with terminal(home.environment, "mount", str(home.mountpoint)) as person:
            person.expect("Which?")
            person.interrupt()
            assert 130 == person.ended()
        assert "nothing was made" in person.text
        assert not home.root.exists()
        try:
            with terminal(home.environment, "mount", str(home.mountpoint)) as person:
                person.expect("Which?")
                person.type("2")
                person.expect("Make it?")
                person.type()
                assert 0 == person.ended(), person.text
            (home.mountpoint / "file").write_text("content")
            home.ok("umount", str(home.mountpoint))
        finally:
            stop_emulator(home.root)


def on_enter(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], after: int = 1) -> None:
    """Do something in Discord before somebody presses Enter for the `after`th time."""
    left = [after]

    def wait_for_enter(_what_for: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            act()
        assert left[0] >= 0, "it was not noticed"

    monkeypatch.setattr("disfs.cli.dialog.wait_for_enter", wait_for_enter)


def list_channels(discord: Emulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = RestClient(discord)("GET", f"/guilds/{discord.guild_id}/channels").json
    return found


def stop_emulator(home: Path) -> None:
    """End the emulator that a mount started in the background."""
    info = home / "state" / "emulator" / "info.json"
    if info.exists():
        os.kill(json.loads(info.read_text())["pid"], signal.SIGTERM)
