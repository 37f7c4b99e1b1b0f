"""Messages: create, read, list, edit, delete."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from aiohttp import web

from disfs.emulator.call import json_response, parse_snowflake
from disfs.emulator.errors import (
    ApiError,
    empty_message,
    invalid_form,
    missing_permissions,
    unknown_channel,
    unknown_message,
)
from disfs.emulator.message_store import ChannelGoneError, NonceUsedError
from disfs.emulator.model import TEXT_CHANNEL, Attachment, Message
from disfs.emulator.permissions import Permission, may, require
from disfs.emulator.snowflake import EPOCH_MS, MAXIMUM
from disfs.emulator.upload import Upload, receive_upload

if TYPE_CHECKING:
    from disfs.emulator.call import Call
    from disfs.emulator.upload import NamedFile
    from disfs.emulator.world import World

LIST_DEFAULT = 50
LIST_LIMIT = 100
BULK_LIMIT = 100


class MessageRoutes:
    """The handlers below /channels/{channel_id}/messages."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def create(self, call: Call) -> web.Response:
        """POST messages: committed, files included, when it answers."""
        channel = await self._text_channel(call, Permission.SEND_MESSAGES)
        upload = await receive_upload(call, self._world.blobs, self._world.settings)
        try:
            content = upload.content(self._world.settings)
            files = upload.named_files(self._world.settings)
            if not content and not files:
                raise empty_message()
            if files:
                require(self._world.settings, channel, Permission.ATTACH_FILES)
            message = await self._store(channel, content, upload, files)
        finally:
            upload.discard()
        return json_response(self._world.renderer.message(message, created=True))

    async def get(self, call: Call) -> web.Response:
        """GET one message."""
        message = await self._message(call)
        if message.id >= self._visible_before(call):
            raise unknown_message()
        return json_response(self._world.renderer.message(message))

    async def list_messages(self, call: Call) -> web.Response:
        """GET messages, newest first."""
        channel = await self._text_channel(call)
        query = call.request.query
        limit = _limit(query.get("limit"))
        anchors = [name for name in ("before", "after", "around") if name in query]
        if len(anchors) > 1:
            raise invalid_form(anchors[1], "MUTUALLY_EXCLUSIVE", "Only one of before, after and around may be given.")
        if not may(self._world.settings, channel, Permission.READ_MESSAGE_HISTORY):
            return json_response([])
        visible = self._visible_before(call)
        anchor = parse_snowflake(query[anchors[0]], anchors[0]) if anchors else MAXIMUM
        messages = self._world.messages
        if anchors == ["after"]:
            found = await messages.list_messages(channel, limit, after=anchor, before=visible, oldest_first=True)
        elif anchors == ["around"]:
            older = await messages.list_messages(channel, limit - limit // 2, before=min(anchor + 1, visible))
            newer = await messages.list_messages(
                channel, limit - len(older), after=anchor, before=visible, oldest_first=True
            )
            found = newer + older
        else:
            found = await messages.list_messages(channel, limit, before=min(anchor, visible))
        return json_response([self._world.renderer.message(message) for message in found])

    async def edit(self, call: Call) -> web.Response:
        """PATCH a message: its content, and which of its attachments stay."""
        message = await self._message(call)
        payload = await call.json()
        if message.author != self._world.identity.user:
            raise ApiError(403, 50005, "Cannot edit a message authored by another user")
        changed = Upload(payload)
        content = changed.content(self._world.settings) if "content" in payload else message.content
        flags = payload.get("flags")
        kept = _kept_attachments(message, payload)
        if not content and not kept:
            raise empty_message()
        edited = dataclasses.replace(message, content=content, flags=flags if isinstance(flags, int) else message.flags)
        await self._world.messages.edit(edited, kept, self._world.clock.now_ms())
        stored = await self._world.messages.get(message.channel, message.id)
        if stored is None:
            raise unknown_message()
        return json_response(self._world.renderer.message(stored))

    async def delete(self, call: Call) -> web.Response:
        """DELETE a message."""
        channel = await self._text_channel(call)
        if not may(self._world.settings, channel, Permission.MANAGE_MESSAGES):
            message = await self._world.messages.get(channel, call.snowflake("message_id"))
            if message is not None and message.author != self._world.identity.user:
                raise missing_permissions()
        count = await self._world.messages.delete(channel, [call.snowflake("message_id")], self._world.clock.now_ms())
        if not count:
            raise unknown_message()
        return web.Response(status=204)

    async def bulk_delete(self, call: Call) -> web.Response:
        """POST bulk-delete: all or none; unknown ids count and do no harm."""
        channel = await self._text_channel(call, Permission.MANAGE_MESSAGES)
        listed = (await call.json()).get("messages")
        if not isinstance(listed, list):
            raise invalid_form("messages", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        ids = [parse_snowflake(value, "messages") for value in listed]
        if not 2 <= len(ids) <= BULK_LIMIT:
            raise ApiError(
                400, 50016, "Provided too few or too many messages to delete. Must provide at least 2 and at most 100."
            )
        if len(set(ids)) != len(ids):
            raise invalid_form("messages", "SET_TYPE_ALREADY_CONTAINS_VALUE", "The set already contains this value")
        oldest_ms = self._world.clock.now_ms() - int(self._world.settings.bulk_delete_days * 86_400_000)
        if min(ids) < snowflake_at(oldest_ms):
            raise ApiError(400, 50034, "You can only bulk delete messages that are under 14 days old.")
        await self._world.messages.delete(channel, ids, self._world.clock.now_ms())
        return web.Response(status=204)

    async def _text_channel(self, call: Call, wanted: Permission = Permission.VIEW_CHANNEL) -> int:
        """The channel of a request, if the bot may do there what it asks for."""
        channel = await self._world.channels.get(call.snowflake("channel_id"))
        if channel is None:
            raise unknown_channel()
        require(self._world.settings, channel.id, wanted)
        if channel.type != TEXT_CHANNEL:
            raise ApiError(400, 50008, "Cannot send messages in a non-text channel")
        return channel.id

    async def _message(self, call: Call) -> Message:
        channel = await self._text_channel(call, Permission.READ_MESSAGE_HISTORY)
        message = await self._world.messages.get(channel, call.snowflake("message_id"))
        if message is None:
            raise unknown_message()
        return message

    def _visible_before(self, call: Call) -> int:
        """Reads see messages with ids below this: eventual consistency, when it is asked for."""
        delay = self._world.settings.visibility_delay_seconds
        if call.fault is not None and call.fault.kind == "stale":
            delay = max(delay, call.fault.seconds)
        if delay <= 0:
            return MAXIMUM
        return snowflake_at(self._world.clock.now_ms() - int(delay * 1000))

    async def _store(self, channel: int, content: str, upload: Upload, files: list[NamedFile]) -> Message:
        """Keep the files, then add the message; for a used nonce, find the first message instead."""
        world = self._world
        ids = [world.snowflakes.next() for _ in files]
        message_id = world.snowflakes.next()
        flags = upload.payload.get("flags")
        message = Message(
            message_id,
            channel,
            world.identity.user,
            content,
            flags if isinstance(flags, int) else 0,
            upload.nonce(),
            None,
            None,
            tuple(_attachment(number, ids[number], message_id, channel, file) for number, file in enumerate(files)),
        )
        since = None
        if upload.payload.get("enforce_nonce") is True:
            since = snowflake_at(world.clock.now_ms() - int(world.settings.nonce_seconds * 1000))
        await world.blobs.keep(
            {attachment: file.blob for attachment, file in zip(ids, files, strict=True)}, fsync=world.settings.fsync
        )
        try:
            await world.messages.add(message, nonce_since=since, nonce_per_channel=world.settings.nonce_per_channel)
        except NonceUsedError as used:
            await world.blobs.remove(ids)
            return await self._earlier(used)
        except ChannelGoneError as error:
            await world.blobs.remove(ids)
            raise unknown_channel() from error
        # After any other error the message may be there all the same, so its files stay; if it is not,
        # the next start removes them.
        return message

    async def _earlier(self, used: NonceUsedError) -> Message:
        message = None if used.deleted else await self._world.messages.get(used.channel, used.message)
        if message is None:
            raise unknown_message()
        return message


def snowflake_at(milliseconds: int) -> int:
    """The lowest id that can have been made at a time (milliseconds since 1970)."""
    return max(0, milliseconds - EPOCH_MS) << 22


def _limit(text: str | None) -> int:
    if text is None:
        return LIST_DEFAULT
    if not text.isascii() or not text.isdecimal():
        raise invalid_form("limit", "NUMBER_TYPE_COERCE", f'Value "{text}" is not int.')
    if not 1 <= int(text) <= LIST_LIMIT:
        raise invalid_form("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    return int(text)


def _kept_attachments(message: Message, payload: dict[str, Any]) -> list[int]:
    present = [attachment.id for attachment in message.attachments]
    entries = payload.get("attachments", [{"id": attachment} for attachment in present])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise invalid_form("attachments", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    kept = {parse_snowflake(entry.get("id"), "attachments") for entry in entries}
    return [attachment for attachment in present if attachment in kept]


def _attachment(ordinal: int, attachment: int, message: int, channel: int, file: NamedFile) -> Attachment:
    return Attachment(
        attachment,
        message,
        channel,
        ordinal,
        file.filename,
        file.title,
        file.description,
        file.content_type,
        file.blob.size,
    )
