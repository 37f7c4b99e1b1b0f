"""The door through which errors leave: one line for the person, one code for the program."""

from __future__ import annotations

import logging
import os
import sys

import click

from disfs.config import Paths
from disfs.errors import (
    DisfsError,
    ExitCode,
    MetadataDamagedError,
    NotFoundError,
    PermissionMissingError,
    TokenRejectedError,
    TransientStorageError,
    UserError,
)
from disfs.logs import redact
from disfs.private_files import unusable

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended."""


def run(command: click.Command, arguments: list[str]) -> int:
    """Run a click command and return the process's exit code; nothing is raised."""
    try:
        outcome = command.main(arguments, prog_name="disfs", standalone_mode=False)
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        return _usage(error)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # The reader of our output has enough, as in `disfs volumes | head -1`. Python must not try to flush again.
        # Click makes a SystemExit of it, with the code that here means a bug.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:  # the last door: what is unknown here is logged and becomes exit code 1
        known = explain(error)
        complain(str(known))
        return known.exit_code


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "disfs"
    complain(f"{error.format_message().rstrip('.')}; see '{path} --help'")
    return ExitCode.USAGE


def complain(message: str) -> None:
    """Print one line on stderr, whatever line ends the message holds, and without a token or signed URL."""
    click.echo(f"disfs: {redact(' '.join(message.split()))}", err=True)


def explain(error: Exception) -> UserError:
    """The one line and the exit code that any error becomes; what is not known is logged with its traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, DisfsError):
        return explain_storage(error)
    if isinstance(error, OSError):
        return unusable(error, Paths.from_environment(os.environ).state)
    return _unknown(error)


def explain_storage(error: DisfsError) -> UserError:
    """What a failure of Discord means for a person."""
    if isinstance(error, TokenRejectedError):
        return UserError(
            "Discord rejects the bot token; copy it again from the Developer Portal (Bot, Reset Token)",
            ExitCode.TOKEN_REJECTED,
        )
    if isinstance(error, PermissionMissingError):
        return UserError(
            f"the bot lacks the permission {error.permission}; give it to the bot's role in the server settings",
            ExitCode.MISSING_PERMISSION,
        )
    if isinstance(error, NotFoundError):
        return UserError(
            f"Discord does not know it: {error}; was a channel deleted, or the bot removed?", ExitCode.UNKNOWN_GUILD
        )
    if isinstance(error, TransientStorageError):
        return UserError(
            f"Discord cannot be reached: {error}; check the network, then try again", ExitCode.DISCORD_UNREACHABLE
        )
    if isinstance(error, MetadataDamagedError):
        return UserError(
            f"the volume's metadata are damaged: {error}; put a backup of the state directory back, or put it "
            "aside and run 'disfs recover'; the log says more",
            ExitCode.VOLUME_DAMAGED,
        )
    return UserError(f"{error}; the log says more", ExitCode.INTERNAL)


def _unknown(error: Exception) -> UserError:
    log_file = Paths.from_environment(os.environ).log_file
    try:
        from disfs import logs

        logs.set_up(log_file, to_stderr=False)
        log.error("a command failed", exc_info=error)
        logs.shut_down()
        where = f"{log_file} has the details"
    except UserError:
        where = "no log could be written"
    return UserError(f"internal error ({type(error).__name__}: {error}); {where}", ExitCode.INTERNAL)
