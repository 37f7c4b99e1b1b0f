"""All numbers and switches of the emulator, changeable while it runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024


class InvalidSettingError(ValueError):
    """An unknown setting, or a value that it cannot take; the text says which."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many requests a bucket takes in a window; `advertised` is what the headers claim instead."""

    limit: int
    seconds: float
    advertised: int | None = None


def default_limits() -> dict[str, Limit]:
    """The buckets as observed in 2026; Discord tells them only in headers."""
    return {
        "create_message": Limit(5, 5.0),
        "list_messages": Limit(5, 5.0, advertised=1000),
        "get_message": Limit(5, 5.0),
        "edit_message": Limit(5, 5.0),
        "delete_message_young": Limit(5, 1.0),
        "delete_message": Limit(3, 0.333),
        "delete_message_old": Limit(30, 4.0),
        "bulk_delete": Limit(1, 1.0),
    }


@dataclass(slots=True)
class Settings:
    """What the control API shows and changes. Every default is what Discord is known or believed to do."""

    # What a message may hold
    attachment_limit_bytes: int = 10 * MIB
    request_limit_bytes: int = 250 * MIB
    attachments_per_message: int = 10
    content_characters: int = 2000
    premium_tier: int = 0
    """The boost tier that the guild reports; it does not move `attachment_limit_bytes`."""

    # Rate limits
    rate_limits: bool = True
    """False: no bucket and no global limit is enforced or advertised."""
    rate_limit_mode: str = "fixed"
    """`fixed`: the whole bucket refills when its window ends. `sliding`: each request returns by itself."""
    limits: dict[str, Limit] = field(default_factory=default_limits)
    global_limit: int = 50
    global_seconds: float = 1.0
    invalid_request_limit: int = 10_000
    invalid_request_seconds: float = 600.0
    cloudflare_block_seconds: float = 3600.0

    # Nonces, visibility, content
    nonce_seconds: float = 180.0
    nonce_per_channel: bool = False
    """True: the same nonce in another channel makes another message."""
    nonce_in_get: bool = False
    visibility_delay_seconds: float = 0.0
    """Reads do not see a message until it is this old."""
    message_content_intent: bool = False
    """False: messages of other authors come without content and attachments."""
    bulk_delete_days: float = 14.0

    # CDN
    url_seconds: int = 86_400
    url_rounding_seconds: int = 3600
    delete_grace_seconds: float = 120.0
    """How long the attachments of a deleted message stay readable."""
    ignore_range: bool = False

    # Token, permissions
    token_revoked: bool = False
    in_guild: bool = True
    """False: the bot was not invited (yet), or was thrown out."""
    permissions: int = (1 << 50) - 1
    """What the bot may do in the guild: Discord's bits. The default includes Administrator, whom no channel denies."""
    denied: dict[str, int] = field(default_factory=dict)
    """What it may not do in single channels: by channel id, bits again. Replaced as a whole."""

    # Shaping; 0 means unlimited
    latency_seconds: float = 0.0
    latency_jitter_seconds: float = 0.0
    upload_bytes_per_second: float = 0.0
    download_bytes_per_second: float = 0.0
    slow_start: bool = False
    slow_start_bytes: int = 64 * 1024
    slow_start_round_trip_seconds: float = 0.05

    # Durability
    fsync: bool = True

    def as_json(self) -> dict[str, Any]:
        """All settings as plain values."""
        return dataclasses.asdict(self)

    def update(self, changes: dict[str, Any]) -> None:
        """Take over `changes`, all or none. Raises `InvalidSettingError`."""
        checked = {name: self._checked(name, value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def _checked(self, name: str, value: Any) -> Any:
        if name not in {known.name for known in dataclasses.fields(self)}:
            raise InvalidSettingError(f"unknown setting: {name}")
        if name == "limits":
            return self.limits | _checked_limits(value)
        if name == "rate_limit_mode" and value not in {"fixed", "sliding"}:
            raise InvalidSettingError("rate_limit_mode is fixed or sliding")
        if name == "denied":
            return _checked_denied(value)
        return _checked_scalar(name, value, type(getattr(self, name)))


def _checked_scalar(name: str, value: Any, kind: type[Any]) -> Any:
    if kind is bool or isinstance(value, bool):
        if kind is not bool or not isinstance(value, bool):
            raise InvalidSettingError(f"{name} must be of type {kind.__name__}")
        return value
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind):
        raise InvalidSettingError(f"{name} must be of type {kind.__name__}")
    if kind in {int, float} and not 0 <= value < float("inf"):
        raise InvalidSettingError(f"{name} must not be negative")
    return value


def _checked_denied(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(bits) is int and bits >= 0 for bits in value.values()):
        raise InvalidSettingError("denied must be an object: channel id to permission bits")
    return {str(channel): bits for channel, bits in value.items()}


def _checked_limits(value: Any) -> dict[str, Limit]:
    if not isinstance(value, dict):
        raise InvalidSettingError("limits must be an object: bucket name to limit, seconds, advertised")
    known = default_limits()
    result = {}
    for bucket, fields in value.items():
        if bucket not in known:
            raise InvalidSettingError(f"unknown bucket: {bucket}")
        try:
            limit = Limit(int(fields["limit"]), float(fields["seconds"]), fields.get("advertised"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidSettingError(f"bucket {bucket} needs limit and seconds") from error
        if limit.limit < 1 or limit.seconds <= 0:
            raise InvalidSettingError(f"bucket {bucket} needs a positive limit and positive seconds")
        result[bucket] = limit
    return result
