"""The lease at both ends of a mount: who may come in, what the person is told, and that it is given back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from disfs.errors import ExitCode, StorageError, UserError
from disfs.recovery.holding_values import HeldElsewhereError, clock
from disfs.recovery.lease import VALID_MS

if TYPE_CHECKING:
    from disfs.recovery.holding import LeaseHolder
    from disfs.recovery.lease import Posted

log = logging.getLogger(__name__)

CLAIM_SECONDS = 20.0
"""How long a mount waits to hear whether another machine has the volume."""
GIVE_BACK_SECONDS = 5.0
"""How long the end of a mount waits until the lease is deleted; it ends by itself otherwise."""


async def admit(holder: LeaseHolder, name: str, *, takes_over: bool) -> list[str]:
    """Take the lease of volume `name`; returns what a person should know. VOLUME_HELD when it is another machine's.

    Discord that does not answer is no reason not to mount: `LeaseHolder.run` claims it as soon as it does.
    """
    try:
        with trio.fail_after(CLAIM_SECONDS):
            before = await holder.claim(takes_over=takes_over)
    except HeldElsewhereError as error:
        raise UserError(refusal(name, error.holder), ExitCode.VOLUME_HELD) from error
    except (StorageError, trio.TooSlowError) as error:
        reason = str(error) or "no answer in time"
        log.warning("the lease cannot be claimed now: %s", reason)
        unknown = f"it is not known yet whether another machine has volume {name!r} mounted ({reason})"
        return [unknown, *(take_over_later(holder, name) if takes_over else [])]
    if before is None:
        return []
    log.warning("the volume was taken over from %s", before.lease.host)
    return [takeover_warning(name, before)]


def take_over_later(holder: LeaseHolder, name: str) -> list[str]:
    """Discord does not answer a mount that is to take volume `name` over; returns what a person should know."""
    holder.take_over_later()
    return [f"volume {name!r} is taken over as soon as Discord answers, unless another machine has gone on with it"]


async def give_back(holder: LeaseHolder) -> None:
    """Delete the lease, if that can be done soon; also while being cancelled."""
    with trio.move_on_after(GIVE_BACK_SECONDS, shield=True):
        await holder.release()


def refusal(name: str, holder: Posted) -> str:
    """What a person is told who wants to mount what another machine has mounted. Pure."""
    lease, ends = holder.lease, clock(holder.message, VALID_MS / 1000)
    return (
        f"volume {name!r} is mounted on {lease.host} (device {lease.device.hex()[:8]}) since {clock(holder.first)}; "
        f"unmount it there; if that machine is dead, its lease ends by itself at {ends}; "
        "'disfs mount --takeover' does not wait, and what is not sent there then never will be"
    )


def takeover_warning(name: str, holder: Posted) -> str:
    """What a person is told who has taken a volume over. Pure."""
    return (
        f"volume {name!r} was taken over from {holder.lease.host} (device {holder.lease.device.hex()[:8]}): if it is "
        "still mounted there, what is written there is not sent any more"
    )
