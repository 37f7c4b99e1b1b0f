"""The first exchange with the kernel, here a socket: what the answer gains, and that nothing stays in between."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from disfs.init_exchange import FUSE_DONT_MASK, InitExchange, with_dont_mask
from disfs.polled_loop import PolledReadiness

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER_FLAGS = 0b1011
OFFER = OTHER_FLAGS | FUSE_DONT_MASK


def a_request(offered: int = OFFER, opcode: int = 26) -> bytes:
    """INIT of version 7.45, as the kernel writes it."""
    body = struct.pack("=IIII", 7, 45, 1 << 17, offered) + bytes(48)
    return struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 2, 0, 0, 0, 0, 0, 0) + body


def an_answer(wanted: int = OTHER_FLAGS, error: int = 0) -> bytes:
    """What libfuse answers to it."""
    body = struct.pack("=IIIIHHI", 7, 38, 1 << 17, wanted, 12, 9, 1 << 20) + bytes(40)
    return struct.pack("=IiQ", 16 + len(body), error, 2) + body


REFUSAL = struct.pack("=IiQ", 16, -71, 2)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Device:
    """A descriptor as the FUSE device's, and the kernel behind it."""

    def __init__(self) -> None:
        self.kernel, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(5)
        self.fd = self._device.fileno()

    def close(self) -> None:
        self.kernel.close()
        self._device.close()


@pytest.fixture
def device() -> Iterator[Device]:
    opened = Device()
    yield opened
    opened.close()


def test_answer_gains_the_flag() -> None:
    """The one flag, and nothing else."""
    assert an_answer(OTHER_FLAGS | FUSE_DONT_MASK) == with_dont_mask(a_request(), an_answer())


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (a_request(OTHER_FLAGS), an_answer()),
        (a_request(opcode=1), an_answer()),
        (a_request(), an_answer(error=-5)),
        (a_request(), REFUSAL),
        (a_request()[:50], an_answer()),
        (b"", b""),
    ],
)
def test_other_answers_stay(request_: bytes, answer: bytes) -> None:
    """Where the kernel does not offer it, is refused, or asks for something else, the answer goes on as it is."""
    assert answer == with_dont_mask(request_, answer)


async def test_exchange_leaves_nothing_in_between(device: Device) -> None:
    """pyfuse3 reads the request and writes its answer at the same descriptor; afterwards that is the device again."""
    inode = os.fstat(device.fd).st_ino
    before = open_descriptors()
    readiness = PolledReadiness(InitExchange())
    device.kernel.send(a_request())
    await readiness.wait_readable(device.fd)
    assert a_request() == os.read(device.fd, 1 << 20)
    os.write(device.fd, an_answer())
    device.kernel.send(b"next request")
    await readiness.wait_readable(device.fd)
    assert an_answer(OTHER_FLAGS | FUSE_DONT_MASK) == device.kernel.recv(1000)
    assert b"next request" == os.read(device.fd, 1 << 20)
    os.write(device.fd, b"next answer")
    assert b"next answer" == device.kernel.recv(1000)
    assert (inode, before) == (os.fstat(device.fd).st_ino, open_descriptors())
    assert not os.get_inheritable(device.fd)


async def test_exchange_waits_for_the_kernel(device: Device) -> None:
    """Nothing is touched before there is a request; a wait that is cancelled can be begun again."""
    exchange = InitExchange()
    with trio.move_on_after(0):
        await exchange.step(device.fd)
    device.kernel.send(a_request())
    await exchange.step(device.fd)
    assert a_request() == os.read(device.fd, 1 << 20)
    exchange.close()


async def test_request_without_an_answer(device: Device) -> None:
    """Is none of our business: the device is back in its place."""
    exchange = InitExchange()
    device.kernel.send(a_request())
    await exchange.step(device.fd)
    os.read(device.fd, 1 << 20)
    await exchange.step(device.fd)
    assert exchange.is_over
    os.write(device.fd, b"late answer")
    assert b"late answer" == device.kernel.recv(1000)


async def test_device_that_is_gone_already(device: Device) -> None:
    """pyfuse3 is left to find that out."""
    os.write(device.fd, b"unread, so that the other end is told of the loss")
    device.kernel.close()
    exchange = InitExchange()
    await exchange.step(device.fd)
    assert exchange.is_over


async def test_broken_exchange_lets_go(device: Device) -> None:
    """Nothing is open any more, and closing once more is harmless."""
    before = open_descriptors()
    exchange = InitExchange()
    device.kernel.send(a_request())
    await exchange.step(device.fd)
    exchange.close()
    exchange.close()
    assert before == open_descriptors()
