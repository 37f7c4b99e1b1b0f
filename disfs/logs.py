"""Where log lines go, set up once per process.

A file under the state directory, rotated by size, and stderr where a person is watching. A filter takes
signed URLs and the bot token out of every line: the code that logs does not put them there, and this
catches what a library, or an exception's text, might.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import sys
from typing import TYPE_CHECKING

from disfs.private_files import explained, make_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import TextIOWrapper
    from pathlib import Path

LOG_FILE_BYTES = 4 * 1024 * 1024
LOG_FILE_COUNT = 3

_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""As syslog numbers them."""
_SIGNED_QUERY = re.compile(r"(https?://[^\s\"'<>?]+)\?[^\s\"'<>]+")
_BOT_TOKEN = re.compile(r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}")
_AUTHORIZATION = re.compile(r"(Authorization['\"]?\s*[:=]\s*['\"]?)(?:Bot\s+)?[^\s'\",]+", re.IGNORECASE)
_REDACTED = "[redacted]"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the queries of URLs, without anything that looks like a bot token, and without `secrets`."""
    for secret in secrets:
        text = text.replace(secret, _REDACTED)
    text = _SIGNED_QUERY.sub(rf"\1?{_REDACTED}", text)
    text = _AUTHORIZATION.sub(rf"\1{_REDACTED}", text)
    return _BOT_TOKEN.sub(_REDACTED, text)


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, and takes the secrets out of the result.

    A formatter and not a `logging.Filter`: a filter sees the message before its arguments and the traceback are
    put in, and the traceback is where a library's URL turns up.
    """

    def __init__(self, secrets: Iterable[str] = (), form: str = _FORMAT) -> None:
        super().__init__(form)
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several with a traceback."""
        return redact(super().format(record), self._secrets)


class JournalFormatter(RedactingFormatter):
    """The same for systemd's journal: each line with its priority, and without the time, which the journal has."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(secrets, "%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """A traceback is many lines, which all matter alike."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def is_journal(stream: int, environment: Mapping[str, str]) -> bool:
    """Whether a descriptor leads to systemd's journal: systemd says which device and inode that would be."""
    try:
        found = os.fstat(stream)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A log file that only its owner may read, also after it has been rotated."""

    def _open(self) -> TextIOWrapper:
        os.close(os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return super()._open()


def set_up(log_file: Path, *, to_stderr: bool, secrets: Iterable[str] = (), level: int = logging.INFO) -> None:
    """Send all log records to `log_file`, and to stderr if asked for. STATE_UNUSABLE, STATE_FULL.

    A second call replaces what the first one set up.
    """
    make_directory(log_file.parent)
    formatter = RedactingFormatter(secrets)
    with explained(log_file):
        handlers: list[logging.Handler] = [
            _PrivateRotatingFile(log_file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILE_COUNT, encoding="utf-8")
        ]
    handlers[0].setFormatter(formatter)
    if to_stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
        goes_to_journal = is_journal(2, os.environ)
        handlers[1].setFormatter(JournalFormatter(secrets) if goes_to_journal else formatter)
    shut_down()
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    # Libraries log each request at INFO; what matters of it is logged by our own transport.
    for library in ("discord", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)


def shut_down() -> None:
    """Close what `set_up` opened; log lines go nowhere from then on."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, RedactingFormatter):
            root.removeHandler(handler)
            handler.close()
    logging.captureWarnings(False)
