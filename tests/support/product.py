"""The installed program as a person uses it: the command line in subprocesses, its own home, a real mount."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSPHRASE = "correct horse battery staple"


class Product:
    """`disfs` with a home, a mount point and an emulator of its own, all below one directory."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir(parents=True)
        unwanted = ("DISFS_", "XDG_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)} | {
            "DISFS_HOME": str(self.home),
            "DISFS_PASSPHRASE": PASSPHRASE,
            "HOME": str(directory),
        }

    def run(self, *arguments: str, timeout: float = 240, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `disfs ARGUMENTS`; its output is captured. With `check`, a failure raises with what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "disfs", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"disfs {arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
            )
        return done

    def mount(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Mount the emulator volume, which makes both at the first time."""
        return self.run("mount", "--emulator", str(self.mountpoint), *arguments)

    def umount(self, *arguments: str) -> None:
        """Unmount, which waits until everything is in Discord; afterwards the daemon is gone."""
        pid = self.pid()
        self.run("umount", str(self.mountpoint), *arguments)
        self._wait_gone(pid)

    def status(self) -> dict[str, Any]:
        """What `disfs status --json` prints."""
        status: dict[str, Any] = json.loads(self.run("status", str(self.mountpoint), "--json").stdout)
        return status

    def pid(self) -> int:
        """The daemon's process id."""
        return int(self.status()["pid"])

    def kill(self) -> None:
        """kill -9 the daemon, then clear the dead mount away as `disfs mount` would ask for."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        self._wait_gone(pid)
        self.clear_mount()

    @staticmethod
    def _wait_gone(pid: int) -> None:
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.02)  # another process ends: there is nothing to wait on but the process table

    def daemons(self) -> list[int]:
        """The processes that serve a volume of this home."""
        found = []
        for directory in self.home.glob("state/volumes/*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int((directory / "lock").read_text().split()[0])
                if str(self.home).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        return found

    @staticmethod
    def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
        """Return when `condition` holds, which other processes bring about; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)  # other processes: there is nothing to wait on

    def clear_mount(self) -> None:
        """Take away whatever is mounted on the mount point."""
        for flags in ("-u", "-uz"):
            if str(self.mountpoint) in Path("/proc/mounts").read_text():
                subprocess.run(["fusermount3", flags, str(self.mountpoint)], capture_output=True, check=False)

    def drop_cache(self) -> None:
        """Delete the cache directory, as a user who wants the space back."""
        shutil.rmtree(self.home / "cache")

    def cold(self) -> None:
        """Unmount, delete the cache, mount again: every byte now comes from Discord."""
        self.umount()
        self.drop_cache()
        self.mount()

    @property
    def emulator_directory(self) -> Path:
        """Where the background emulator keeps its state."""
        return self.home / "state" / "emulator"

    def emulator(self) -> dict[str, Any]:
        """What `disfs emulator --info` prints."""
        info: dict[str, Any] = json.loads(self.run("emulator", "--info").stdout)
        return info

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A request to the emulator's control API; the decoded answer."""
        request = urllib.request.Request(
            self.emulator()["control_url"].rstrip("/") + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def api(self, method: str, path: str, body: object = None) -> Any:
        """A request as the bot itself would make it, repeated while the daemon has used up what is allowed."""
        answers: list[Any] = []

        def is_allowed() -> bool:
            try:
                answers.append(self._request(method, path, body))
            except urllib.error.HTTPError as error:
                if error.code != 429:
                    raise
            return bool(answers)

        self.wait_for(is_allowed)
        return answers[0]

    def _request(self, method: str, path: str, body: object) -> Any:
        """Once; the decoded answer."""
        info = self.emulator()
        request = urllib.request.Request(
            info["api_url"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bot {info['token']}",
                "User-Agent": "DiscordBot (tests, 1)",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def data_messages(self) -> list[tuple[int, int]]:
        """(message, channel) of every message with packs, in no order; ids rise with time."""
        guild = self.emulator()["guild_id"]
        channels = [c for c in self.api("GET", f"/guilds/{guild}/channels") if c["type"] == 0 and "data" in c["name"]]
        return [
            (int(message["id"]), int(channel["id"]))
            for channel in channels
            for message in self.api("GET", f"/channels/{channel['id']}/messages?limit=100")
            if message["attachments"]
        ]

    def superblock_message(self) -> tuple[int, int]:
        """(message, channel) of the superblock."""
        guild = self.emulator()["guild_id"]
        (index,) = (c for c in self.api("GET", f"/guilds/{guild}/channels") if c["name"] == "index")
        messages = self.api("GET", f"/channels/{index['id']}/messages?limit=100")
        return int(messages[-1]["id"]), int(index["id"])

    def index_message_count(self) -> int:
        """How many messages the index channel has."""
        _, channel = self.superblock_message()
        return len(self.api("GET", f"/channels/{channel}/messages?limit=100"))

    def say(self, channel: int, text: str) -> None:
        """Write a message without attachments."""
        self.api("POST", f"/channels/{channel}/messages", {"content": text})

    def delete_message(self, message_and_channel: tuple[int, int]) -> None:
        """Delete a message as somebody with the right to do so might."""
        message, channel = message_and_channel
        self.api("DELETE", f"/channels/{channel}/messages/{message}")

    def log(self) -> str:
        """The ends of all log files, for the message of a failing test."""
        logs = sorted(self.home.rglob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in logs)

    def close(self) -> None:
        """Stop everything that was started: daemon, mount, emulator."""
        with contextlib.suppress(Exception):
            self.umount("--no-wait")
        for directory in self.home.glob("state/**/"):
            for name in ("lock", "info.json", "run.json", "mount.json"):
                self._kill_from(directory / name)
        self.clear_mount()

    def _kill_from(self, path: Path) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            text = path.read_text()
            pid = int(json.loads(text)["pid"]) if text.startswith("{") else int(text.split()[0])
            if str(self.home).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGTERM if path.name == "info.json" else signal.SIGKILL)
                self._wait_gone(pid)


@contextlib.contextmanager
def product(directory: Path) -> Iterator[Product]:
    """A `Product` that is stopped and unmounted at the end, whatever happened."""
    running = Product(directory)
    try:
        yield running
    finally:
        running.close()
