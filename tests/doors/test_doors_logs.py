"""Log files and what may not stand in them."""

from __future__ import annotations

import logging
import stat
from typing import TYPE_CHECKING

import pytest

from disfs import logs
from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.abcdefghijklmnopqrstuvwxyz0123456789ab"
SIGNED = "https://cdn.discordapp.com/attachments/1/2/x.bin?ex=6543&is=1234&hm=deadbeef"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logs.shut_down()
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"fetching {SIGNED} failed", "deadbeef"),
        (f"login with {TOKEN} failed", TOKEN),
        ("headers {'Authorization': 'Bot abc.def.ghi'}", "abc.def.ghi"),
        ("Authorization: Bot abc.def.ghi", "abc.def.ghi"),
        ("odd secret s3cr3t here", "s3cr3t"),
    ],
)
def test_redact_hides_secrets(text: str, hidden: str) -> None:
    """Signed queries, bot tokens, authorization headers and named secrets are taken out."""
    assert hidden not in logs.redact(text, ["s3cr3t"])


def test_redact_keeps_the_rest() -> None:
    """What is left of a signed URL still tells which attachment it was."""
    assert "https://cdn.discordapp.com/attachments/1/2/x.bin?[redacted] failed" == logs.redact(f"{SIGNED} failed")


def test_traceback_is_redacted_too(tmp_path: Path) -> None:
    """A secret in an exception's text does not reach the file either."""
    file = tmp_path / "log"
    logs.set_up(file, to_stderr=False, secrets=["s3cr3t"])
    try:
        raise ValueError(f"{SIGNED} s3cr3t")
    except ValueError:
        logging.getLogger("disfs.test").exception("it failed")
    logs.shut_down()
    text = file.read_text()
    assert "Traceback" in text
    assert "deadbeef" not in text
    assert "s3cr3t" not in text


def test_file_is_private_and_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log files have mode 0600, and an old one makes room for a new one."""
    monkeypatch.setattr(logs, "LOG_FILE_BYTES", 500)
    file = tmp_path / "deep" / "log"
    logs.set_up(file, to_stderr=False)
    for number in range(20):
        logging.getLogger("disfs.test").info("line %d %s", number, "x" * 50)
    logs.shut_down()
    written = sorted(file.parent.iterdir())
    assert len(written) == 1 + logs.LOG_FILE_COUNT
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in written}


def test_stderr_only_in_the_foreground(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With to_stderr a person sees the lines, without it nothing is printed."""
    logs.set_up(tmp_path / "log", to_stderr=False)
    logging.getLogger("disfs.test").warning("quiet")
    logs.set_up(tmp_path / "log", to_stderr=True)
    logging.getLogger("disfs.test").warning("loud")
    printed = capsys.readouterr().err
    assert "loud" in printed
    assert "quiet" not in printed


def test_unwritable_place_is_one_line(tmp_path: Path) -> None:
    """A log directory that cannot be made is STATE_UNUSABLE."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        logs.set_up(tmp_path / "file" / "log", to_stderr=False)
    assert ExitCode.STATE_UNUSABLE == caught.value.exit_code
