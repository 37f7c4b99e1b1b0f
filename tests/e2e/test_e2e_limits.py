"""What Discord may do to a volume for a long while: nothing is lost, status says what is wrong, and work goes on by
itself when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.trouble import (
    MIB,
    data_channels,
    eventually,
    fault,
    fired,
    no_faults,
    problems,
    read_cold,
    settings,
    sync,
    told,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def disk(shared_disk: Product) -> Iterator[Product]:
    """The volume of all tests here; the next one finds Discord as it should be."""
    yield shared_disk
    no_faults(shared_disk)
    settings(shared_disk, token_revoked=False, attachment_limit_bytes=10 * MIB, upload_bytes_per_second=0)


def test_a_limit_lowered_while_packs_are_in_flight_costs_nothing(disk: Product) -> None:
    """Discord takes smaller attachments from now on: what was on its way is packed anew, and status says how much
    an attachment takes now."""
    settings(disk, upload_bytes_per_second=40 * MIB)
    content = write(disk, "lowered", 40 * MIB)
    disk.wait_for(lambda: disk.status()["writeback"]["sending_bytes"] > 0)
    settings(disk, attachment_limit_bytes=2 * MIB)
    sync(disk)

    status = disk.status()
    assert (0, True) == (status["dirty_bytes"], status["writeback"]["attachment_limit_bytes"] <= 2 * MIB)
    assert [] == problems(disk)
    disk.cold()
    assert content == (disk.mountpoint / "lowered").read_bytes()


def test_a_read_only_channel_is_read_from_and_no_longer_written_to(disk: Product) -> None:
    """The bot loses the right to send to a channel: packs there stay readable, new ones go elsewhere, and status
    names the permission that is missing."""
    old = write(disk, "old", 3 * MIB)
    sync(disk)
    channel = next(channel for channel, count in data_channels(disk).items() if count)
    before = data_channels(disk)[channel]
    fault(disk, kind="missing_permissions", route="create_message", channel_id=str(channel))
    new: dict[str, bytes] = {}
    while not fired(disk):
        new[f"new{len(new)}"] = write(disk, f"new{len(new)}", 1000)
        sync(disk)

    assert 0 == disk.status()["dirty_bytes"]
    assert before == data_channels(disk)[channel]
    assert "Send Messages" in " ".join(problems(disk)), told(disk)
    disk.cold()
    assert old == (disk.mountpoint / "old").read_bytes()
    assert new == {name: (disk.mountpoint / name).read_bytes() for name in new}


def test_a_revoked_token_stops_uploads_and_loses_nothing(disk: Product) -> None:
    """The token is revoked: status says so, what is written stays and can be read; with the token valid again
    everything is sent without anybody's doing."""
    settings(disk, token_revoked=True)
    content = write(disk, "revoked", 5 * MIB)
    eventually(disk, lambda: "token" in " ".join(problems(disk)))
    status = disk.status()
    assert 5 * MIB == status["dirty_bytes"]
    assert content == read_cold(disk.mountpoint / "revoked")
    settings(disk, token_revoked=False)
    eventually(disk, lambda: disk.status()["dirty_bytes"] == 0)
    disk.cold()
    assert content == (disk.mountpoint / "revoked").read_bytes()


def test_a_channel_deleted_while_others_work_takes_nothing_unsent_with_it(disk: Product) -> None:
    """Somebody deletes a data channel: what was being sent to it goes elsewhere, status names the channel, and files
    that lie in the others are whole."""
    before = data_channels(disk)
    there = {"small": write(disk, "small", MIB)}
    sync(disk)
    gone = next(channel for channel, count in data_channels(disk).items() if count == before[channel])
    settings(disk, upload_bytes_per_second=20 * MIB)
    there["large"] = write(disk, "large", 30 * MIB)
    disk.api("DELETE", f"/channels/{gone}")
    sync(disk)

    assert 0 == disk.status()["dirty_bytes"]
    complaint = " ".join(problems(disk))
    assert str(gone) in complaint, told(disk)
    disk.cold()
    assert there == {name: (disk.mountpoint / name).read_bytes() for name in there}
