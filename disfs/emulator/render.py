"""Stored things as the JSON objects of API v10, complete as the OpenAPI file asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.emulator.clock import iso_timestamp
from disfs.emulator.model import TEXT_CHANNEL
from disfs.emulator.snowflake import created_ms

if TYPE_CHECKING:
    from disfs.emulator.model import Attachment, Channel, Message
    from disfs.emulator.settings import Settings
    from disfs.emulator.signing import UrlSigner


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the bot is and where it lives; ids are made at the first start."""

    guild: int
    user: int
    application: int
    owner: int
    guild_name: str = "Emulated guild"
    bot_name: str = "disfs-emulator"


class Renderer:
    """Turns stored things into replies."""

    def __init__(self, identity: Identity, settings: Settings, signer: UrlSigner) -> None:
        self._identity = identity
        self._settings = settings
        self._signer = signer

    def me(self) -> dict[str, Any]:
        """Our user, as it sees itself."""
        return self.user(self._identity.user) | {
            "mfa_enabled": False,
            "locale": "en-US",
            "premium_type": 0,
            "email": None,
            "verified": True,
        }

    def user(self, user: int) -> dict[str, Any]:
        """Any user."""
        ours = user == self._identity.user
        return {
            "id": str(user),
            "username": self._identity.bot_name if ours else f"user{user}",
            "avatar": None,
            "discriminator": "0000" if ours else "0",
            "public_flags": 0,
            "flags": 0,
            "bot": ours,
            "banner": None,
            "accent_color": None,
            "global_name": None,
            "avatar_decoration_data": None,
            "collectibles": None,
            "primary_guild": None,
        }

    def application(self) -> dict[str, Any]:
        """Our application."""
        return {
            "id": str(self._identity.application),
            "name": self._identity.bot_name,
            "icon": None,
            "description": "An emulator, not Discord",
            "type": None,
            "bot": self.user(self._identity.user),
            "summary": "",
            "bot_public": False,
            "bot_require_code_grant": False,
            "verify_key": "00" * 32,
            "flags": 0,
            "flags_new": "0",
            "hook": True,
            "redirect_uris": [],
            "interactions_endpoint_url": None,
            "role_connections_verification_url": None,
            "owner": self.user(self._identity.owner),
            "approximate_guild_count": 1,
            "approximate_user_install_count": 0,
            "approximate_user_authorization_count": 0,
            "explicit_content_filter": 0,
            "team": None,
            "eligible_oauth2_scopes": [],
        }

    def guild_summary(self, *, with_counts: bool) -> dict[str, Any]:
        """The guild as the list of our guilds shows it."""
        return {
            "id": str(self._identity.guild),
            "name": self._identity.guild_name,
            "icon": None,
            "banner": None,
            "owner": False,
            "permissions": str(self._settings.permissions),
            "features": [],
        } | (_COUNTS if with_counts else {})

    def guild(self, *, with_counts: bool) -> dict[str, Any]:
        """The guild itself."""
        reply = _GUILD | {
            "id": str(self._identity.guild),
            "name": self._identity.guild_name,
            "owner_id": str(self._identity.owner),
            "premium_tier": self._settings.premium_tier,
            "roles": self.roles(),
        }
        return reply | (_COUNTS if with_counts else {})

    def roles(self) -> list[dict[str, Any]]:
        """The guild's only role, @everyone, whose id is the guild's."""
        return [
            {
                "id": str(self._identity.guild),
                "name": "@everyone",
                "description": None,
                "permissions": str(self._settings.permissions),
                "position": 0,
                "color": 0,
                "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
                "hoist": False,
                "managed": False,
                "mentionable": False,
                "icon": None,
                "unicode_emoji": None,
                "flags": 0,
            }
        ]

    def member(self, user: int) -> dict[str, Any]:
        """A member of the guild."""
        return {
            "avatar": None,
            "banner": None,
            "communication_disabled_until": None,
            "flags": 0,
            "joined_at": iso_timestamp(created_ms(self._identity.guild)),
            "nick": None,
            "pending": False,
            "premium_since": None,
            "roles": [],
            "user": self.user(user),
            "mute": False,
            "deaf": False,
        }

    def channel(self, channel: Channel) -> dict[str, Any]:
        """A channel or a category."""
        reply: dict[str, Any] = {
            "id": str(channel.id),
            "type": channel.type,
            "flags": 0,
            "guild_id": str(self._identity.guild),
            "name": channel.name,
            "position": channel.position,
            "parent_id": None if channel.parent is None else str(channel.parent),
            "permission_overwrites": self._overwrites(channel),
        }
        if channel.type == TEXT_CHANNEL:
            last = None if channel.last_message is None else str(channel.last_message)
            reply |= {
                "topic": channel.topic,
                "nsfw": channel.nsfw,
                "rate_limit_per_user": channel.slowmode,
                "last_message_id": last,
            }
        return reply

    def _overwrites(self, channel: Channel) -> list[dict[str, Any]]:
        denied = self._settings.denied.get(str(channel.id))
        if not denied:
            return []
        return [{"id": str(self._identity.guild), "type": 0, "allow": "0", "deny": str(denied)}]

    def message(self, message: Message, *, created: bool = False) -> dict[str, Any]:
        """A message. What another author wrote is blanked unless the intent is on."""
        readable = message.author == self._identity.user or self._settings.message_content_intent
        reply: dict[str, Any] = {
            "type": 0,
            "content": message.content if readable else "",
            "mentions": [],
            "mention_roles": [],
            "attachments": [self.attachment(attachment) for attachment in message.attachments] if readable else [],
            "embeds": [],
            "timestamp": iso_timestamp(created_ms(message.id)),
            "edited_timestamp": None if message.edited_ms is None else iso_timestamp(message.edited_ms),
            "flags": message.flags,
            "components": [],
            "id": str(message.id),
            "channel_id": str(message.channel),
            "author": self.user(message.author),
            "pinned": False,
            "mention_everyone": False,
            "tts": False,
        }
        if message.nonce is not None and (created or self._settings.nonce_in_get):
            reply["nonce"] = json.loads(message.nonce)
        return reply

    def attachment(self, attachment: Attachment) -> dict[str, Any]:
        """An attachment with a URL that is valid now."""
        url = self._signer.url(attachment)
        reply: dict[str, Any] = {
            "id": str(attachment.id),
            "filename": attachment.filename,
            "size": attachment.size,
            "url": url,
            "proxy_url": url,
        }
        if attachment.content_type is not None:
            reply["content_type"] = attachment.content_type
        if attachment.title is not None:
            reply["title"] = attachment.title
        if attachment.description is not None:
            reply["description"] = attachment.description
        return reply


_COUNTS: dict[str, Any] = {"approximate_member_count": 2, "approximate_presence_count": 1}
_GUILD: dict[str, Any] = {
    "icon": None,
    "description": None,
    "home_header": None,
    "splash": None,
    "discovery_splash": None,
    "features": [],
    "banner": None,
    "application_id": None,
    "region": "deprecated",
    "afk_channel_id": None,
    "afk_timeout": 300,
    "system_channel_id": None,
    "system_channel_flags": 0,
    "widget_enabled": False,
    "widget_channel_id": None,
    "verification_level": 0,
    "default_message_notifications": 0,
    "mfa_level": 0,
    "explicit_content_filter": 0,
    "max_presences": None,
    "max_members": 500000,
    "max_stage_video_channel_users": 50,
    "max_video_channel_users": 25,
    "vanity_url_code": None,
    "premium_subscription_count": 0,
    "preferred_locale": "en-US",
    "rules_channel_id": None,
    "safety_alerts_channel_id": None,
    "public_updates_channel_id": None,
    "premium_progress_bar_enabled": False,
    "nsfw": False,
    "nsfw_level": 0,
    "emojis": [],
    "stickers": [],
    "incidents_data": None,
}
