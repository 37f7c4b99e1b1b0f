"""The emulator as a subprocess, driven by blocking calls: for tests under trio, asyncio and neither.

`Emulator.start(directory, **settings)` returns one that listens; it is a context manager, and `stop` or
`kill` may be called at any time, repeatedly. In a test:

    with Emulator.start(tmp_path / "emulator", rate_limits=False) as emulator:
        emulator.fault(kind="reset", route="create_message", when="after")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 30.0
POLL_SECONDS = 0.01

# A proxy from the environment must not come between a test and the loopback interface.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Emulator:
    """One emulator process and its control API."""

    def __init__(self, data_dir: Path, settings: dict[str, Any]) -> None:
        self.data_dir = data_dir
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._info: dict[str, Any] = {}

    @classmethod
    def start(cls, data_dir: Path, **settings: Any) -> Emulator:
        """Start on a directory, new or used; returns once it listens."""
        emulator = cls(data_dir, settings)
        emulator._launch()
        return emulator

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def api_url(self) -> str:
        """Base of the REST API, with /api/v10."""
        return str(self._info["api_url"])

    @property
    def token(self) -> str:
        """The bot token."""
        return str(self._info["token"])

    @property
    def guild_id(self) -> int:
        """The only guild."""
        return int(self._info["guild_id"])

    @property
    def control_url(self) -> str:
        """Base of the control API."""
        return str(self._info["control_url"])

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._info["pid"])

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control API; `RuntimeError` with its text when it refuses."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control_url + path, data=data, method=method)
        try:
            with _OPENER.open(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings; returns all of them."""
        return dict(self.control("PATCH", "/settings", changes))

    def fault(self, **fields: Any) -> int:
        """Add a fault; returns its id."""
        return int(self.control("POST", "/faults", fields)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The faults in force, with `seen` and `fired`."""
        return list(self.control("GET", "/faults"))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.control("DELETE", "/faults")

    def counts(self) -> dict[str, int]:
        """Requests by route name since the start or the last reset; a route never asked for is missing."""
        return dict(self.counters()["requests"])

    def counters(self) -> dict[str, Any]:
        """Everything that is counted."""
        return dict(self.control("GET", "/counters"))

    def reset_counters(self) -> None:
        """Count from zero."""
        self.control("DELETE", "/counters")

    def shift_clock(self, seconds: float) -> None:
        """Move the emulator's clock."""
        self.control("POST", "/clock", {"seconds": seconds})

    def kill(self) -> None:
        """SIGKILL: what a crash leaves stays in the directory."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM and wait; SIGKILL when it does not listen."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the emulator did not stop on SIGTERM") from None

    def restart(self, **settings: Any) -> None:
        """Stop unless killed already, start again on the same directory; the port changes, faults are forgotten."""
        self.stop()
        self._settings |= settings
        self._launch()

    def _launch(self) -> None:
        info_path = self.data_dir / "info.json"
        # After a kill the old file is still there; only the one of the new process counts.
        info_path.unlink(missing_ok=True)
        assignments = [f"--set={name}={json.dumps(value)}" for name, value in self._settings.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "disfs.emulator", "--data", os.fspath(self.data_dir), *assignments],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not info_path.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the emulator exited with {self._process.returncode}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("the emulator did not start")
            time.sleep(POLL_SECONDS)
        self._info = json.loads(info_path.read_text())
