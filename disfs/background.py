"""Leave the terminal: fork twice, report back over a pipe, go on without anybody.

Must run before this process has threads or an event loop: a fork copies only the calling thread. What the caller has in
memory (the volume key, the token) goes along and so is never in an argument list, an environment or a file.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_REPORT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ready:
    """The daemon does its work; what a person should know is in `warnings`, what went well in `notes`."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def start(serve: Callable[[Callable[[Ready], None]], int], *, explain: Callable[[Exception], UserError]) -> Ready:
    """Run `serve` in the background and return once it calls what it is given.

    `serve` returns the exit code of the background process. What it raises before it is ready is raised here, as the
    `UserError` that `explain` makes of it; INTERNAL when it dies without a word.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            return _result(pipe.read(_MAX_REPORT_BYTES))
    code = int(ExitCode.INTERNAL)
    try:
        os.close(reader)
        _detach()
        code = _serve(serve, explain, writer)
    finally:
        # Not sys.exit: nothing of the parent's command line may run a second time in here.
        os._exit(code)


def _detach() -> None:
    """Become a process of nobody's session, without terminal, working directory or standard streams."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


def _serve(
    serve: Callable[[Callable[[Ready], None]], int], explain: Callable[[Exception], UserError], writer: int
) -> int:
    told = False

    def tell(report: dict[str, object]) -> None:
        nonlocal told
        if not told:
            told = True
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(report).encode("ascii"))

    try:
        return serve(lambda ready: tell({"warnings": list(ready.warnings), "notes": list(ready.notes)}))
    except Exception as error:
        known = explain(error)
        tell({"error": str(known), "exit_code": int(known.exit_code)})
        return known.exit_code


def _result(raw: bytes) -> Ready:
    if not raw:
        raise UserError("the daemon died while it was starting; its log says why", ExitCode.INTERNAL)
    report = json.loads(raw)
    if "error" in report:
        raise UserError(report["error"], ExitCode(report["exit_code"]))
    return Ready(tuple(report["warnings"]), tuple(report["notes"]))
