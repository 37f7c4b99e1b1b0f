"""Draws the pictures of docs/getting-started.md: real runs of the guided set-up at a terminal, against the emulator.

    .venv/bin/python scripts/setup_pictures.py

What differs from run to run or from machine to machine is replaced: directories, ids, the made-up passphrase.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.emulator import Emulator  # noqa: E402 - found only below tests/
from support.home import home  # noqa: E402 - as above
from support.terminal import terminal  # noqa: E402 - as above

if TYPE_CHECKING:
    from support.home import Home

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 112
NEEDED = 109584
ATTACH_FILES = 1 << 15
PASSPHRASE = "marble-otter-lantern-cobalt-ridge-butter-harp"  # noqa: S105 - an example
_OTHER_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
_FONTS = re.compile(r"@font-face \{.*?\}\n?", re.DOTALL)


def main() -> None:
    """Run the set-up once, and draw it in pieces."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        settings = {"rate_limits": False, "in_guild": False, "permissions": NEEDED & ~ATTACH_FILES}
        with Emulator.start(place / "emulator", **settings) as emulator, home(place, emulator) as person:
            shown = set_up(emulator, person)
            person.run("umount", str(person.mountpoint))
        shown = tidy(shown, place, emulator)
    start, bot, server, volume, passphrase, mount = re.split(r"(?m)^(?=\S*Step \d of 5)", shown)
    draw("setup-bot", "disfs mount ~/discord", "$ disfs mount ~/discord\n" + start + bot)
    draw("setup-server", "disfs mount ~/discord", server)
    draw("setup-volume", "disfs mount ~/discord", volume + passphrase)
    draw("setup-mount", "disfs mount ~/discord", mount)


def set_up(emulator: Emulator, person: Home) -> str:
    """What a person sees who does most things right; ANSI sequences included."""
    person.mountpoint.rmdir()
    for name in ("DISFS_TOKEN", "DISFS_PASSPHRASE"):
        del person.environment[name]
    with terminal(person.environment, "mount", str(person.mountpoint), columns=COLUMNS) as screen:
        for question, answer, act in (
            ("Which?", "1", None),
            ("Bot token", emulator.token, None),
            ("Press Enter", "", {"in_guild": True}),
            ("Press Enter", "", {"permissions": NEEDED}),
            ("Name of the new volume", "photos", None),
            ("Shall it be so?", "", None),
            ("Which passphrase?", "1", None),
            ("then type it", None, None),
            ("Make it?", "", None),
            ("Keep it?", "", None),
        ):
            screen.expect(question)
            if act is not None:
                emulator.settings(**act)
            screen.type(made_up(screen.text) if answer is None else answer)
        assert screen.ended() == 0, screen.text
        return screen.shown


def made_up(text: str) -> str:
    """The passphrase that was shown."""
    return next(line.strip() for line in text.splitlines() if line.count("-") == 6)


def tidy(shown: str, place: Path, emulator: Emulator) -> str:
    """The same without what is of this run alone."""
    shown = _OTHER_ESCAPES.sub("", shown).replace("\r\n", "\n")
    assert emulator.token not in shown
    shown = shown.replace(made_up(re.sub(r"\x1b\[[0-9;]*m", "", shown)), PASSPHRASE)
    shown = shown.replace(str(place / "mnt"), "/home/you/discord").replace(str(place), "/home/you")
    shown = re.sub(r"client_id=\d+", "client_id=123456789012345678", shown)
    return shown.replace("Emulated guild", "My disk").replace("disfs-emulator", "my-disk-bot")


def draw(name: str, title: str, shown: str) -> None:
    """Write a picture that asks nobody for fonts."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text.from_ansi(shown.strip("\n")), soft_wrap=False, highlight=False)
    picture = console.export_svg(title=title, theme=MONOKAI, unique_id=name)
    picture = _FONTS.sub("", picture).replace("Fira Code", "ui-monospace, DejaVu Sans Mono")
    (PICTURES / f"{name}.svg").write_text(re.sub(r"[ \t]+\n", "\n", picture))


if __name__ == "__main__":
    main()
