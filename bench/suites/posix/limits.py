"""Limits that take a while to reach."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.suites.posix import calls

if TYPE_CHECKING:
    from bench.suites.posix.compare import Answers

_ENOUGH = 70_000


def most_links(answers: Answers) -> None:
    """A file has 65,000 names at most, here as on ext4; each that goes makes room for one."""
    calls.touch("f")

    def link_on() -> None:
        for number in range(_ENOUGH):
            os.link("f", f"l{number}")

    answers.see("one name more", link_on)
    answers.see("nlink", lambda: os.stat("f").st_nlink)
    answers.see("rename is no link", os.rename, "l0", "moved")
    answers.see("unlink", os.unlink, "l1")
    answers.see("link again", os.link, "f", "again")
    answers.see("and no more", os.link, "f", "more")


CASES = (("most links", most_links),)
