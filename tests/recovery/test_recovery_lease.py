"""One writer at a time: leases, and machines that contend for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.leases import KEY, VOLUME, Discord
from support.real_stores import VOLUME_ID, real_stores
from support.shipments import header, names, sealed

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import CorruptDataError, ExitCode, TransientStorageError, UserError
from disfs.recovery.admission import admit
from disfs.recovery.arrivals import ForkedError, refuse_fork
from disfs.recovery.frames import NewerFormatError
from disfs.recovery.holding import AGAIN_SECONDS, RENEW_SECONDS
from disfs.recovery.holding_values import HeldElsewhereError
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.lease import (
    LEASE_VERSION,
    NO_MESSAGE,
    SIZES,
    THIS_MESSAGE,
    VALID_MS,
    Lease,
    Posted,
    message_before,
    opened_lease,
    rival,
    sealed_lease,
)
from disfs.values import MessageId

if TYPE_CHECKING:
    from support.leases import Machine
    from trio.testing import MockClock

VALID_SECONDS = VALID_MS / 1000
LEASE = Lease(volume=VOLUME, device=b"d" * 16, place=b"p" * 16, session=b"s" * 16, host="one")


def bytes_of(lease: Lease, key: VolumeKey = KEY) -> bytes:
    """The attachment."""
    return b"".join(sealed_lease(key, lease).upload.parts)


# -- the format ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(host=st.text(max_size=80), numbers=st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3))
def test_lease_comes_back_as_it_was_sealed(host: str, numbers: list[int]) -> None:
    """Whatever the host is called; a name that is too long for the field is cut."""
    first, previous, takeover = (MessageId(number) for number in numbers)
    lease = replace(LEASE, host=host, first=first, previous=previous, takeover=takeover)
    raw = bytes_of(lease)
    assert len(raw) in SIZES
    opened = opened_lease(KEY, raw)
    assert opened is not None
    kept = host.encode("utf-8", "replace")[:64].decode("utf-8", "replace")
    assert replace(lease, host=kept) == opened


def test_lease_that_is_damaged_or_foreign_is_none() -> None:
    """Each byte counts; another volume's key opens nothing."""
    raw = bytes_of(LEASE)
    for position in range(0, len(raw), 7):
        with pytest.raises((CorruptDataError, NewerFormatError)):
            opened_lease(KEY, raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        with pytest.raises(CorruptDataError):
            opened_lease(KEY, raw[:position])
    with pytest.raises(CorruptDataError):
        opened_lease(VolumeKey(bytes(32)), raw)


def test_journal_is_no_lease() -> None:
    """What is sealed with the same key under another kind is passed over."""
    assert None is opened_lease(KEY, sealed(header("one"), PackKind.JOURNAL, [names(1)])[0])


def test_sample_of_the_format_opens_for_ever() -> None:
    """The lease in tests/golden, as docs/format.md describes it."""
    golden = Path(__file__).parents[1] / "golden"
    expected = json.loads((golden / "lease-v1.json").read_text())
    lease = opened_lease(VolumeKey(bytes.fromhex(expected.pop("key"))), (golden / "lease-v1.bin").read_bytes())
    assert lease is not None
    found = {name: getattr(lease, name) for name in Lease.__slots__}
    assert expected == {name: value.hex() if isinstance(value, bytes) else value for name, value in found.items()}


# -- which one counts ------------------------------------------------------------------------------------------------


def at(seconds: float, number: int = 0) -> MessageId:
    """The id of a message of that moment."""
    return MessageId((int(seconds * 1000) << 22) | number)


def posted(
    seconds: float,
    who: str,
    *,
    first: MessageId = THIS_MESSAGE,
    previous: MessageId = NO_MESSAGE,
    takeover: MessageId = NO_MESSAGE,
) -> Posted:
    """A lease of machine `who`, posted at that moment."""
    name = who.encode().ljust(16)
    lease = replace(LEASE, place=name, session=name, host=who, first=first, previous=previous, takeover=takeover)
    return Posted(at(seconds), lease)


def test_who_came_first_counts() -> None:
    """Of two leases the older one; of two chains the one that began first, whichever message is newer."""
    one, two = posted(1000, "one"), posted(1001, "two")
    assert None is rival(one, one.message, [one, two])
    assert one == rival(two, two.message, [one, two])
    renewed = posted(1120, "one", first=at(1000), previous=at(1000))
    assert renewed == rival(two, two.message, [two, renewed])
    assert None is rival(renewed, one.message, [two, renewed])


def test_chain_that_was_interrupted_is_none() -> None:
    """A machine that slept for longer than its lease held does not come before the one that has it now."""
    one = posted(2000, "one", first=at(1000), previous=at(2000 - VALID_SECONDS - 1))
    two = posted(1900, "two")
    assert two == rival(one, at(1000), [one, two])
    assert None is rival(two, two.message, [one, two])
    assert one.first == one.message


def test_old_lease_does_not_count() -> None:
    """It has ended by itself, by Discord's clock."""
    one, two = posted(1000, "one"), posted(1000 + VALID_SECONDS, "two")
    assert one == rival(two, two.message, [one, two])
    late = posted(1000 + VALID_SECONDS + 1, "two")
    assert None is rival(late, late.message, [one, late])
    assert message_before(late.message) > one.message
    assert message_before(two.message) < one.message


def test_takeover_comes_before_what_it_found_and_after_later_ones() -> None:
    """The last one to take over counts, also when the first one renews its lease."""
    one = posted(1000, "one")
    two = posted(1050, "two", takeover=THIS_MESSAGE)
    renewed = posted(1120, "one", first=at(1000), previous=at(1000))
    three = posted(1130, "three", takeover=THIS_MESSAGE)
    assert None is rival(two, two.message, [one, two, renewed])
    assert two == rival(renewed, one.message, [one, two, renewed])
    chained = posted(1170, "two", first=at(1050), previous=at(1050), takeover=at(1050))
    assert three == rival(chained, two.message, [chained, three])
    assert None is rival(three, three.message, [chained, three])


# -- machines --------------------------------------------------------------------------------------------------------


async def contend(machines: list[Machine]) -> list[HeldElsewhereError]:
    """All claim at the same moment; why those lost who did."""
    lost: list[HeldElsewhereError] = []

    async def claim(machine: Machine) -> None:
        try:
            await machine.holder.claim()
        except HeldElsewhereError as error:
            lost.append(error)

    async with trio.open_nursery() as nursery:
        for machine in machines:
            nursery.start_soon(claim, machine)
    return lost


@pytest.mark.parametrize("seed", range(24))
async def test_of_those_who_start_at_once_exactly_one_wins(autojump_clock: MockClock, seed: int) -> None:
    """However their requests interleave; nothing of the others stays in the channel."""
    discord = Discord(seed)
    machines = [discord.machine(f"host {number}") for number in range(2 + seed % 4)]
    lost = await contend(machines)
    winners = [machine for machine in machines if machine.has_it]
    assert (1, len(machines) - 1, 1) == (len(winners), len(lost), discord.leases)


@pytest.mark.parametrize("seed", range(16))
async def test_message_that_shows_late_makes_the_younger_one_give_way(autojump_clock: MockClock, seed: int) -> None:
    """Where messages can be seen only seconds after they have their ids, a second look leaves exactly one."""
    discord = Discord(seed, late_seconds=2.0)
    machines = [discord.machine(f"host {number}") for number in range(3)]
    await contend(machines)
    async with trio.open_nursery() as nursery:
        for machine in machines:
            if machine.has_it:
                nursery.start_soon(machine.run)
        await trio.sleep(20)
        assert 1 == sum(machine.has_it for machine in machines)
        assert 1 == discord.leases
        nursery.cancel_scope.cancel()


async def test_listing_without_the_own_lease_decides_nothing(autojump_clock: MockClock) -> None:
    """It is from before: what else it does not show may well be there. It is asked for again, and then given up."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    two.transport.stale_until = trio.current_time() + 2.5
    with pytest.raises(HeldElsewhereError):
        await two.holder.claim()
    two.mount()
    two.transport.stale_until = float("inf")
    with pytest.raises(TransientStorageError):
        await two.holder.claim()
    assert not two.has_it


async def test_who_lost_the_lease_ships_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The shipper asks for the lease before each state, and stops for good when another machine has it."""
    async with real_stores(tmp_path, ships=True) as (world, _):

        async def lost() -> None:
            raise HeldElsewhereError("two has it", posted(1000, "two"))

        world.shipper._ask = world.shipper._ask._replace(hold_lease=lost)
        await world.create(b"file")
        await trio.sleep(60)
        assert "two has it" == world.shipper.statistics().conflict
        assert [] == world.memory.messages(world.index)
        assert world.shipper.stopped.is_set()
        await world.shipper.drain()


async def test_regression_late_takeover_is_no_fork_of_its_own(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A claim and a shipper wait for Discord together: what the shipper then sends is not another machine's."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        holder = world.make_holder()
        shipping = world.metadata.shipping
        index = IndexChannel(world.transport, world.index, world.key, VOLUME_ID)

        async def refuse_takeover() -> None:
            await refuse_fork(index, shipping.position(), {each.message for each in shipping.messages()})

        holder.before_late_takeover = refuse_takeover
        holder.take_over_later()
        await world.shipper.drain()
        await trio.sleep(1)
        slow = world.transport.plan("list_messages", 1, Fault(hold=trio.Event()))
        nursery.start_soon(holder.claim)
        await slow.reached.wait()
        world.shipper._ask = world.shipper._ask._replace(hold_lease=holder.ensure)
        await world.create(b"file")
        await trio.sleep(60)
        assert slow.hold is not None
        slow.hold.set()
        await trio.sleep(60)
        await world.shipper.drain()
        await holder.ensure()
        assert (None, True) == (world.shipper.conflict, holder.statistics().held)


@pytest.mark.parametrize("seed", range(12))
async def test_random_lives_never_give_two_holders(autojump_clock: MockClock, seed: int) -> None:
    """Mounts, unmounts, kills, lost connections, long pauses: whoever may send is alone, and in the end one may."""
    random = Random(seed)
    discord = Discord(seed)
    machines = [discord.machine(f"host {number}") for number in range(3)]
    mounted: set[Machine] = set()

    async def live(machine: Machine, nursery: trio.Nursery) -> None:
        action = random.choice(("mount", "mount", "unmount", "kill", "cut", "mend"))
        if action == "mount" and machine not in mounted:
            machine.mount()
            try:
                await machine.holder.claim()
            except HeldElsewhereError:
                return
            except TransientStorageError:
                pass
            mounted.add(machine)
            await nursery.start(machine.run)
        elif action in ("unmount", "kill") and machine in mounted:
            machine.kill()
            mounted.remove(machine)
            if action == "unmount":
                await machine.holder.release()
        elif action in ("cut", "mend"):
            machine.transport.is_up = action == "mend"

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            await live(random.choice(machines), nursery)
            await trio.sleep(random.choice((0.1, 5, 100, 400)))
            assert len(await may_send(mounted)) <= 1
        for machine in machines:
            machine.transport.is_up = True
            machine.kill()
        await trio.sleep(VALID_SECONDS + 1)
        machines[0].mount()
        await machines[0].holder.claim()
        assert machines[0].has_it
        nursery.cancel_scope.cancel()


async def may_send(mounted: set[Machine]) -> list[Machine]:
    """Who of these is let through when something is to be sent, all asking at the same time."""
    able: list[Machine] = []

    async def ask(machine: Machine) -> None:
        try:
            await machine.holder.ensure()
        except (HeldElsewhereError, TransientStorageError):
            return
        if machine.transport.is_up:
            able.append(machine)

    async with trio.open_nursery() as nursery:
        for machine in mounted:
            nursery.start_soon(ask, machine)
    return able


async def test_second_machine_is_refused_until_the_first_is_done(autojump_clock: MockClock) -> None:
    """The refusal says who has it, since when, when it ends and what to do; an unmount lets the next one in at once."""
    discord = Discord()
    one, two = discord.machine("first-host"), discord.machine("second-host")
    assert [] == await admit(one.holder, "photos", takes_over=False)
    with pytest.raises(UserError, match="'photos' is mounted on first-host") as refused:
        await admit(two.holder, "photos", takes_over=False)
    assert ExitCode.VOLUME_HELD == refused.value.exit_code
    assert "ends by itself at" in str(refused.value)
    assert "--takeover" in str(refused.value)
    assert 1 == discord.leases
    await one.holder.release()
    assert 0 == discord.leases
    two.mount()
    assert [] == await admit(two.holder, "photos", takes_over=False)


async def test_lease_of_a_killed_mount_is_its_own_machine_s_at_once(autojump_clock: MockClock) -> None:
    """Another machine waits until it has ended."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    one.mount()
    await one.holder.claim()
    assert one.has_it
    assert 1 == discord.leases
    with pytest.raises(HeldElsewhereError):
        await two.holder.claim()
    await trio.sleep(VALID_SECONDS + 1)
    two.mount()
    await two.holder.claim()
    assert two.has_it


@pytest.mark.parametrize("forgets", [True, False])
async def test_regression_chain_that_was_given_back_does_not_go_on(autojump_clock: MockClock, forgets: bool) -> None:
    """Unmounted, mounted elsewhere, mounted again: the second machine has it, whatever the first one remembers."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    remembered = one._remembered
    await one.holder.release()
    await two.holder.claim()
    if not forgets:
        one._remembered = remembered  # killed before that was committed
    one.mount()
    with pytest.raises(HeldElsewhereError):
        await one.holder.claim()
    assert (False, True) == (one.has_it, two.has_it)


async def test_lease_of_a_newer_version_makes_this_one_give_way(autojump_clock: MockClock) -> None:
    """Whatever it says, it is not for us to overrule; the mount goes on and says so."""
    discord = Discord()
    one = discord.machine("one")
    await one.holder.claim()
    newer = sealed_lease(KEY, replace(LEASE, host="newer"), version=LEASE_VERSION + 1)
    await discord.memory.send(discord.index, [newer.upload], nonce="newer")
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await trio.sleep(RENEW_SECONDS)
        assert "use a newer disfs" in one.sender.reasons[0]
        nursery.cancel_scope.cancel()


async def test_lease_is_renewed_and_ends_only_with_its_holder(autojump_clock: MockClock) -> None:
    """An hour later it still holds, there is one message, and few requests were made."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await trio.sleep(3600)
        with pytest.raises(HeldElsewhereError):
            await two.holder.claim()
        assert 1 == discord.leases
        assert discord.memory.statistics().requests < 3.3 * 3600 / RENEW_SECONDS
        nursery.cancel_scope.cancel()


async def test_machine_that_is_pushed_aside_stops_sending(autojump_clock: MockClock) -> None:
    """It notices at its next renewal, says who has taken over, and does not come back by itself."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await trio.sleep(10)
        (warning,) = await admit(two.holder, "photos", takes_over=True)
        assert "taken over from one" in warning
        await nursery.start(two.run)
        await trio.sleep(RENEW_SECONDS + 2)
        assert (False, True) == (one.has_it, two.has_it)
        assert "two (device" in one.sender.reasons[0]
        with pytest.raises(HeldElsewhereError):
            await one.holder.ensure()
        await trio.sleep(1000)
        assert (False, True, 1) == (one.has_it, two.has_it, discord.leases)
        nursery.cancel_scope.cancel()


async def test_regression_takeover_without_discord_is_made_when_it_answers(autojump_clock: MockClock) -> None:
    """What the person asked for at the mount is not forgotten: the other one is pushed aside, and that is told."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        two.transport.is_up = False
        told = await admit(two.holder, "photos", takes_over=True)
        assert "volume 'photos' is taken over as soon as Discord answers" in told[1]
        await nursery.start(two.run)
        await trio.sleep(100)
        assert (True, True, None) == (
            one.has_it,
            two.holder.statistics().takes_over,
            two.holder.statistics().taken_from,
        )
        two.transport.is_up = True
        await trio.sleep(RENEW_SECONDS + 20)
        assert (False, True) == (one.has_it, two.has_it)
        assert (False, "one") == (two.holder.statistics().takes_over, two.holder.statistics().taken_from)
        nursery.cancel_scope.cancel()


async def test_late_takeover_spares_a_machine_that_has_gone_on(autojump_clock: MockClock) -> None:
    """Journals came meanwhile: this machine cannot go on anyway, so it gives way and the other one keeps the volume."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()

    async def forked() -> None:
        await trio.lowlevel.checkpoint()
        raise ForkedError("another machine has gone on")

    two.holder.before_late_takeover = forked
    two.holder.take_over_later()
    async with trio.open_nursery() as nursery:
        await nursery.start(two.run)
        await trio.sleep(30)
        assert ["another machine has gone on"] == two.sender.reasons
        await one.holder.claim()
        assert (True, False) == (one.has_it, two.has_it)
        nursery.cancel_scope.cancel()


async def test_regression_machine_that_slept_looks_when_it_wakes(autojump_clock: MockClock) -> None:
    """Whose lease was taken while it was suspended notices within seconds of its waking up, and not only when the rest
    of its two minutes is over: its other clocks stood still."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await trio.sleep(10)
        await two.holder.claim(takes_over=True)
        one.slept_seconds += 8 * 3600
        await trio.sleep(AGAIN_SECONDS + 3)
        assert (False, True) == (one.has_it, two.has_it)
        assert "two (device" in one.sender.reasons[0]
        nursery.cancel_scope.cancel()


async def test_lease_that_comes_by_in_a_listing_is_noticed_at_once(autojump_clock: MockClock) -> None:
    """Whoever looks at the channel for another reason finds that the volume was taken over."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    assert {1} == {len(await one.holder.notice(discord.memory.messages(discord.index)))}
    await two.holder.claim(takes_over=True)
    with pytest.raises(HeldElsewhereError):
        await one.holder.notice(discord.memory.messages(discord.index))
    assert not one.has_it


async def test_machine_without_a_connection_loses_what_it_cannot_renew(autojump_clock: MockClock) -> None:
    """It goes on, and asks before it sends anything when the network is back: somebody has it by then."""
    discord = Discord()
    one, two = discord.machine("one"), discord.machine("two")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        one.transport.is_up = False
        await trio.sleep(VALID_SECONDS + 1)
        assert "no network" == one.holder.statistics().failure
        await two.holder.claim()
        one.transport.is_up = True
        with pytest.raises(HeldElsewhereError):
            await one.holder.ensure()
        assert two.has_it
        nursery.cancel_scope.cancel()


async def test_mount_without_discord_claims_the_lease_when_it_answers(autojump_clock: MockClock) -> None:
    """It mounts, and says that nobody knows; if another machine has the lease by then, it gives way."""
    discord = Discord()
    one, two, three = (discord.machine(name) for name in ("one", "two", "three"))
    one.transport.is_up = three.transport.is_up = False
    assert 1 == len(await admit(one.holder, "photos", takes_over=False))
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await nursery.start(three.run)
        await trio.sleep(100)
        one.transport.is_up = True
        await trio.sleep(20)
        assert one.has_it
        with pytest.raises(HeldElsewhereError):
            await two.holder.claim()
        three.transport.is_up = True
        await trio.sleep(20)
        assert three.sender.stopped.is_set()
        nursery.cancel_scope.cancel()


async def test_shipper_that_stops_for_another_reason_gives_the_lease_back(autojump_clock: MockClock) -> None:
    """Who sends nothing any more keeps nobody else from it."""
    discord = Discord()
    one = discord.machine("one")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await trio.sleep(1)
        one.sender.stopped.set()
        await trio.sleep(1)
        assert (False, 0) == (one.has_it, discord.leases)


async def test_clone_of_a_machine_is_noticed(autojump_clock: MockClock) -> None:
    """Two mounts that say they are the same place: the newer one has it, the older one stops."""
    discord = Discord()
    one, clone = discord.machine("one"), discord.machine("one")
    await one.holder.claim()
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await clone.holder.claim()
        await nursery.start(clone.run)
        await trio.sleep(RENEW_SECONDS + 10)
        assert (False, True) == (one.has_it, clone.has_it)
        nursery.cancel_scope.cancel()


async def test_what_others_write_into_the_channel_is_passed_over(autojump_clock: MockClock) -> None:
    """Messages of people, of other volumes and of the journal: whatever their size, none is taken for a lease."""
    discord = Discord()
    foreign = bytes_of(LEASE, VolumeKey(bytes(32)))
    other_volume = bytes_of(replace(LEASE, volume=b"another volume.."))
    for number, raw in enumerate([foreign, other_volume, bytes(SIZES.start), b"hello", bytes(SIZES.stop)]):
        await discord.memory.send(discord.index, [Upload("lease.bin", (raw,))], nonce=f"foreign{number}")
    one = discord.machine("one")
    await one.holder.claim()
    assert one.has_it
    assert 6 == discord.leases


async def test_claim_whose_answer_is_lost_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """A mount that gave up waiting for its lease deletes it at the end, if it came to be all the same."""
    discord = Discord()
    one = discord.machine("one")
    with trio.move_on_after(0.45):
        await one.holder.claim()
    assert (False, 1) == (one.has_it, discord.leases)
    await one.holder.release()
    assert 0 == discord.leases
