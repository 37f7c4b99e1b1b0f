"""The command line: parse, call, print. Whatever goes wrong is one line on stderr and a named exit code."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run `disfs` with `arguments` (those of the process by default) and exit with its code."""
    from disfs.cli.commands import disfs
    from disfs.cli.exits import run

    sys.exit(run(disfs, sys.argv[1:] if arguments is None else arguments))
