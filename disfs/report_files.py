"""The files below `.disfs` in the root of a mount: what the daemon says of itself, for whoever can read a file.

A file's text is made when it is opened, and stays the same for that handle; reading does nothing else. As in /proc, its
size is 0 and the kernel is told to pass every read on, so that programs read until there is no more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from disfs.metrics import metrics_text
from disfs.status_report import status_lines
from disfs.values import REPORT_NAMES, REPORTS_INODE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.values import InodeNumber


def report_text(inode: InodeNumber, report: Mapping[str, Any]) -> bytes:
    """What the file of that number says."""
    name = REPORT_NAMES[inode - REPORTS_INODE - 1]
    if name == b"metrics":
        text = metrics_text(report)
    elif name == b"status.json":
        text = json.dumps(report, indent=2) + "\n"
    else:
        text = "".join(f"{line}\n" for line in status_lines(report))
    return text.encode(errors="backslashreplace")
