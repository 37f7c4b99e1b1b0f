"""Load generators that check what they read, or fail when a call does: fio, dbench, bonnie++, postmark, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites.base import Suite, scripts

if TYPE_CHECKING:
    from bench.suites.base import Place, SuiteResult

FIO = (
    "fio --name=v --directory=$M --rw=randrw --bs=4k-64k --size=16M --numjobs=2 --verify=crc32c --verify_fatal=1"
    " --do_verify=1 --fallocate=none"
)
FIO_CHECKS = (
    ("psync", f"{FIO} --ioengine=psync"),
    ("libaio", f"{FIO} --ioengine=libaio --iodepth=8"),
    ("mmap", f"{FIO} --ioengine=mmap"),
    ("direct", f"{FIO} --ioengine=psync --direct=1"),
    ("libaio-direct", f"{FIO} --ioengine=libaio --iodepth=8 --direct=1"),
)
SYSBENCH = "sysbench fileio --file-num=8 --file-total-size=16M --file-test-mode=rndrw --time=3 --validate=on"
# fs_mark takes no path of 40 bytes or more, so it works where it stands.
LOADS = (
    ("dbench", "dbench -t 8 -D $M 2"),
    ("bonnie++", "bonnie++ -d $M -s 64M -r 32 -n 1 -u root -q -f"),
    ("postmark", "printf 'set location '$M'\\nset number 500\\nset transactions 1000\\nrun\\nquit\\n' | postmark"),
    ("fs_mark", "mkdir d; fs_mark -d d -n 300 -s 4096 -t 2 -S 1 -k; test $(ls d | wc -l) = 600"),
    (
        "sysbench",
        f"{SYSBENCH} prepare; {SYSBENCH} run; {SYSBENCH} cleanup",
    ),
)


def run_fio(place: Place) -> SuiteResult:
    """Every engine writes, reads back and compares checksums."""
    return scripts(place, FIO_CHECKS, 120)


def run_loads(place: Place) -> SuiteResult:
    """Each of the others once."""
    return scripts(place, LOADS, 300)


SUITES = (
    Suite("fio", "fio with verification: psync, libaio, mmap, O_DIRECT", run_fio, ("fio",)),
    Suite(
        "loads",
        "dbench, bonnie++, postmark, fs_mark, sysbench",
        run_loads,
        ("dbench", "bonnie++", "postmark", "fsmark", "sysbench"),
    ),
)
