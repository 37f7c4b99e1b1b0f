"""Editors and office programs save on a mount as they do on a local disk; what they could not save comes back."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.pseudo_terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.fuse


def vi(here: Path, *commands: str, options: tuple[str, ...] = ()) -> None:
    """Run commands of ex in vi, without anybody's settings."""
    script = "".join(f"{command}\n" for command in commands)
    subprocess.run(["vi", "-u", "NONE", "-e", "-s", *options], cwd=here, input=script, text=True, check=True)


def saved(here: Path, backupcopy: str) -> dict[str, Any]:
    """What is there after vi has changed a file that has another name, a mode and an attribute of its own."""
    file = here / "letter"
    file.write_text("old\n")
    file.chmod(0o640)
    os.link(file, here / "second name")
    os.setxattr(file, "user.colour", b"blue")
    inode = file.stat().st_ino
    vi(here, "set backup", f"set backupskip= backupcopy={backupcopy}", "edit letter", "%s/old/new/", "write", "quit")
    return {
        "names": sorted(path.name for path in here.iterdir()),
        "contents": [(here / name).read_text() for name in ("letter", "second name", "letter~")],
        "same inode": file.stat().st_ino == inode,
        "mode": oct(file.stat().st_mode),
    }


@pytest.mark.needs("vi")
@pytest.mark.parametrize(("backupcopy", "in_place"), [("yes", True), ("no", False), ("auto", True)])
def test_vi_saves_as_on_a_local_disk(here: Path, tmp_path: Path, backupcopy: str, in_place: bool) -> None:
    """Writing over the file and replacing it both leave what they leave on a local disk, with a backup of the old text
    and no swap file."""
    found = saved(here, backupcopy)
    assert saved(tmp_path, backupcopy) == found
    assert ["new\n", "new\n" if in_place else "old\n", "old\n"] == found["contents"]
    assert (in_place, "0o100640", ["letter", "letter~", "second name"]) == (
        found["same inode"],
        found["mode"],
        found["names"],
    )


@pytest.mark.needs("vi")
def test_what_vi_had_not_saved_comes_back_from_its_swap_file(here: Path, tmp_path: Path) -> None:
    """vi is killed with an unsaved line: the swap file on the mount has it, and `vi -r` brings it back."""
    (here / "letter").write_text("first\n")
    marker = tmp_path / "marker"
    os.mkfifo(marker)
    command = ["vi", "-u", "NONE", "-e", "-s"]
    with subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, text=True) as editor:
        assert editor.stdin is not None
        editor.stdin.write("set swapfile directory=.\nedit letter\nappend\nsecond\n.\npreserve\n")
        editor.stdin.write(f"silent !echo preserved > {marker}\n")
        editor.stdin.flush()
        assert "preserved\n" == marker.read_text()
        editor.kill()
    assert "first\n" == (here / "letter").read_text()
    assert (here / ".letter.swp").exists()

    vi(here, "write recovered", "quit!", options=("-r", "letter"))
    assert "first\nsecond\n" == (here / "recovered").read_text()


@pytest.mark.needs("nano")
def test_nano_edits_with_lock_and_backup(here: Path) -> None:
    """nano on a terminal: its lock file warns a second nano, the file has the new text, its backup the old one, and the
    lock file is gone afterwards."""
    (here / "letter").write_text("world\n")
    options = ("nano", "--ignorercfiles", "--locking", "--backup")
    with terminal(*options, "letter", cwd=here) as editor:
        editor.wait_for("world")
        assert (here / ".letter.swp").exists()
        with terminal(*options, "letter", cwd=here) as second:
            second.wait_for("is being edited")
        editor.keys("hello \x0f\r")  # Ctrl-O, Enter: write out
        editor.wait_for("Wrote 1 line")
        assert ("hello world\n", "world\n") == ((here / "letter").read_text(), (here / "letter~").read_text())
        editor.keys("\x18")  # Ctrl-X: exit
        assert 0 == editor.ends()
    assert ["letter", "letter~"] == sorted(path.name for path in here.iterdir())


def save_as_office_programs_do(document: Path, content: bytes) -> None:
    """A file beside the document, fsync, the document's mode, rename over it, fsync of the directory."""
    part = document.with_name("lu8215kxq.tmp")
    with part.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
    part.replace(document)
    directory = os.open(document.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)


def versions() -> Iterator[bytes]:
    """The document as it is after each save: no two of one length, longer than a chunk and shorter."""
    for number in range(12):
        yield bytes([number]) * (1 + number * 30_000)


def test_a_document_is_old_or_new_while_it_is_saved(here: Path) -> None:
    """Whoever opens a document while an office program saves it over and over reads one version, whole; the lock file
    that says who has it open can be made by one program only."""
    document = here / "report.odt"
    lock = here / ".~lock.report.odt#"
    with lock.open("x") as file:
        file.write(",me,here,25.11.2026 20:15,file:///home/me/.config/libreoffice/4;")
    with pytest.raises(FileExistsError):
        lock.open("x").close()
    save_as_office_programs_do(document, b"")
    read, over = set(), threading.Event()

    def look() -> None:
        while not over.wait(0.001):  # as fast as it can it would keep the saves from the processor
            read.add(document.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for content in versions():
            save_as_office_programs_do(document, content)
    finally:
        over.set()
        reader.join()
    lock.unlink()
    assert read <= {b"", *versions()}
    assert len(read) > 1
    assert (["report.odt"], list(versions())[-1]) == ([path.name for path in here.iterdir()], document.read_bytes())
