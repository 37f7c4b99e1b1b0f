"""Looks at Discord now and then, so that status says how things are and the guild's limits are known.

A look that failed, or uploads that Discord refuses, are a reason to look soon: what comes back says in one line what is
wrong and what to do. When all is well it looks a few times a day: a guild's boost tier changes, and with it how large
an attachment may be.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from disfs.errors import ExitCode, UserError
from disfs.volume import look_at_discord

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.chunkstore.transport.base import GuildAdmin
    from disfs.config import VolumeConfig
    from disfs.volume import Look

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""The least time between two looks, and how soon one that failed is repeated."""
REGULARLY_SECONDS = 6 * 3600.0
NOTICE_SECONDS = 5.0
"""How soon it is noticed that Discord refuses what is sent."""


class DiscordWatch:
    """What is known of Discord's side of a mounted volume; `warning` is for people, None when all is well."""

    def __init__(
        self,
        admin: GuildAdmin,
        volume: VolumeConfig,
        first: Look,
        *,
        is_refused: Callable[[], bool],
        on_attachment_bytes: Callable[[int], None],
    ) -> None:
        self.warning = first.warning
        self.rejects_token = False
        """Whether Discord said so at the last look."""
        self._admin = admin
        self._volume = volume
        self._is_refused = is_refused
        self._on_attachment_bytes = on_attachment_bytes

    async def run(self) -> None:
        """Look again and again, until cancelled. The first look was the mount's."""
        # Nobody has been refused yet: the first refusal is worth a look at once.
        last = trio.current_time() if self.warning else float("-inf")
        while True:
            await self._wait_for_a_reason()
            await trio.sleep_until(last + AGAIN_SECONDS)
            last = trio.current_time()
            await self._look()

    async def _wait_for_a_reason(self) -> None:
        with trio.move_on_after(REGULARLY_SECONDS):
            while self.warning is None and not self._is_refused():  # noqa: ASYNC110 - nobody tells us of a refusal
                await trio.sleep(NOTICE_SECONDS)

    async def _look(self) -> None:
        try:
            look = await look_at_discord(self._admin, self._volume)
        except UserError as error:
            warning: str | None = _while_mounted(error)
            self.rejects_token = error.exit_code == ExitCode.TOKEN_REJECTED
        else:
            self.rejects_token = False
            warning = look.warning
            if look.attachment_bytes is not None:
                self._on_attachment_bytes(look.attachment_bytes)
        if warning != self.warning:
            log.warning("%s", warning) if warning else log.info("Discord takes this volume's bot again")
        self.warning = warning


def _while_mounted(error: UserError) -> str:
    """What a refusal means for a volume that is mounted already."""
    if error.exit_code == ExitCode.TOKEN_REJECTED:
        return (
            "Discord rejects the bot token, so nothing is sent or fetched; put a new one where the old one was (token "
            "file, DISFS_TOKEN, config.toml), then 'disfs umount --no-wait' and mount again: what is unsent is kept"
        )
    return str(error)
