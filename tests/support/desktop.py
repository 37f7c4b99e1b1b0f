"""A desktop without a screen: an X server, a session bus, and a file manager that is used with keys and mouse."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WIDTH, HEIGHT = 800, 500
EJECT_X = 160
"""Where the eject buttons are in the side pane; on which line depends on what else is there."""
PATIENCE_SECONDS = 60.0
NEEDED = ("Xvfb", "xdotool", "dbus-run-session", "thunar", "ffmpeg")
_SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="thunar" version="1.0">
  <property name="misc-thumbnail-mode" type="string" value="THUNAR_THUMBNAIL_MODE_ALWAYS"/>
  <property name="last-window-width" type="int" value="800"/>
  <property name="last-window-height" type="int" value="500"/>
</channel>
"""
# Tests run as root in a container; what Thunar says about that takes place, and says nothing of the mount.
_STYLE = "infobar, infobar * { padding: 0; margin: 0; min-height: 0; font-size: 0; border: none; }\n"


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds, which other programs bring about; fail when they take too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)  # other programs draw and copy: there is nothing to wait on


class Desktop:
    """A display with Thunar on it, whose only window has the keyboard."""

    def __init__(self, display: str, home: Path) -> None:
        self._environment = os.environ | {"DISPLAY": display, "HOME": str(home), "LC_ALL": "C.UTF-8"}
        self._environment = {k: v for k, v in self._environment.items() if not k.startswith(("XDG_", "DBUS_"))}
        self._home = home
        self._display = display

    def xdotool(self, *arguments: str) -> str:
        """Move, click, press; what it prints. Fails when there is nothing to act on."""
        command = ["xdotool", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    @contextlib.contextmanager
    def file_manager(self, directory: Path) -> Iterator[None]:
        """Thunar showing `directory`, as large as the screen; it ends with all that its session started."""
        with (self._home / "thunar.log").open("ab") as log:
            session = subprocess.Popen(
                ["dbus-run-session", "thunar", directory],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.wait_for_title(directory.name)
            yield
        finally:
            end_group(session)

    def wait_for_title(self, title: str) -> None:
        """Return when a window with that title is there, and has the keyboard."""
        search = ("search", "--onlyvisible", "--name", f"^{title} - Thunar$")
        wait_until(lambda: self.xdotool(*search), f"a window called {title}")
        self.xdotool(*search, "windowmove", "0", "0", "windowsize", str(WIDTH), str(HEIGHT), "windowfocus", "--sync")

    def go_to(self, directory: Path) -> None:
        """Type the path of another directory."""
        self.xdotool("key", "ctrl+l")
        self.xdotool("type", "--delay", "5", f"{directory}/")
        self.xdotool("key", "Return")
        self.wait_for_title(directory.name)

    def eject(self, line_y: int) -> None:
        """Click where the eject button of a line of the side pane would be."""
        self.xdotool("mousemove", str(EJECT_X), str(line_y), "click", "1")

    def thumbnail(self, picture: Path) -> Path:
        """Where the desktop's thumbnail of a picture lies, once there is one."""
        name = hashlib.md5(picture.as_uri().encode(), usedforsecurity=False).hexdigest()
        return self._home / ".cache" / "thumbnails" / "normal" / f"{name}.png"

    def picture(self, path: Path) -> None:
        """Keep what the screen shows, as PNG."""
        grab = ["-f", "x11grab", "-draw_mouse", "0", "-video_size", f"{WIDTH}x{HEIGHT}", "-i", self._display]
        subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *grab, "-frames:v", "1", path], check=True)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its session that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)
    wait_until(lambda: not _is_group(process.pid), "the end of the session")


def _is_group(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


@contextlib.contextmanager
def desktop(home: Path) -> Iterator[Desktop]:
    """A desktop whose user has that home."""
    for name, text in (
        (".config/xfce4/xfconf/xfce-perchannel-xml/thunar.xml", _SETTINGS),
        (".config/gtk-3.0/gtk.css", _STYLE),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    taken, given = os.pipe()
    command = ["Xvfb", "-displayfd", str(given), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[given], stderr=subprocess.DEVNULL, start_new_session=True)
    os.close(given)
    try:
        with os.fdopen(taken) as told:
            number = told.readline().strip()
        assert number, "Xvfb does not start"
        yield Desktop(f":{number}", home)
    finally:
        end_group(server)
