"""Account, guild and channel routes; headers, authorization, shape of replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.discord_schema import assert_conforms

from disfs.emulator.snowflake import created_ms

if TYPE_CHECKING:
    from support.emulator import Emulator
    from support.rest_client import RestClient


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/users/@me", "/users/@me"),
        ("/users/@me/guilds", "/users/@me/guilds"),
        ("/users/@me/guilds?with_counts=true", "/users/@me/guilds"),
        ("/oauth2/applications/@me", "/oauth2/applications/@me"),
        ("/gateway", "/gateway"),
        ("/gateway/bot", "/gateway/bot"),
        ("/guilds/{guild}", "/guilds/{guild_id}"),
        ("/guilds/{guild}?with_counts=true", "/guilds/{guild_id}"),
        ("/guilds/{guild}/roles", "/guilds/{guild_id}/roles"),
        ("/guilds/{guild}/channels", "/guilds/{guild_id}/channels"),
        ("/guilds/{guild}/members/{user}", "/guilds/{guild_id}/members/{user_id}"),
        ("/channels/{channel}", "/channels/{channel_id}"),
        ("/channels/{channel}/messages", "/channels/{channel_id}/messages"),
        ("/channels/{channel}/messages/{message}", "/channels/{channel_id}/messages/{message_id}"),
    ],
)
def test_read_conforms_to_openapi(emulator: Emulator, rest: RestClient, channel: str, path: str, pattern: str) -> None:
    """Every reply to a GET is what Discord's own description of its API asks for."""
    message = rest.send(channel, b"x", content="hello", nonce="n").json["id"]
    user = rest("GET", "/users/@me").json["id"]
    reply = rest("GET", path.format(guild=emulator.guild_id, user=user, channel=channel, message=message))

    assert 200 == reply.status
    assert_conforms(reply.json, pattern)


def test_replies_carry_the_headers_of_discord(rest: RestClient) -> None:
    """The content type is bare, the proxy leaves its Via, and the emulator says what it is."""
    headers = rest("GET", "/users/@me").headers

    assert ("application/json", "1.1 google", "1") == (headers["Content-Type"], headers["Via"], headers["X-Emulator"])


def test_bucketed_route_shows_its_limit(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """The rate limit headers come with good answers and with errors, and a refusal says when to come back."""
    emulator.settings(rate_limits=True)
    sent = rest.send(channel, content="hello")
    missing = rest("GET", f"/channels/{channel}/messages/1")

    assert ("5", "4") == (sent.headers["X-RateLimit-Limit"], sent.headers["X-RateLimit-Remaining"])
    assert (404, "4") == (missing.status, missing.headers["X-RateLimit-Remaining"])
    emulator.settings(limits={"get_message": {"limit": 1, "seconds": 60}})
    refused = rest("GET", f"/channels/{channel}/messages/1")
    assert (429, "user", False) == (refused.status, refused.headers["X-RateLimit-Scope"], refused.json["global"])
    assert 0 < refused.json["retry_after"] <= 60
    assert refused.headers["Via"]


def test_invalid_requests_lead_to_a_cloudflare_ban(emulator: Emulator, rest: RestClient) -> None:
    """After too many refusals everything answers 429 as text, without the proxy's header."""
    emulator.settings(rate_limits=True, invalid_request_limit=2, cloudflare_block_seconds=60)
    for _ in range(2):
        assert 401 == rest("GET", "/users/@me", headers={"Authorization": "Bot wrong"}).status
    banned = rest("GET", "/users/@me")

    assert (429, b"error code: 1015", None) == (banned.status, banned.body, banned.headers["Via"])


def test_wrong_or_revoked_token_is_unauthorized(emulator: Emulator, rest: RestClient) -> None:
    """Only the exact token opens the API, and none does once it is revoked."""
    wrong = rest("GET", "/users/@me", headers={"Authorization": f"Bearer {emulator.token}"})
    emulator.settings(token_revoked=True)
    revoked = rest("GET", "/users/@me")

    assert [(401, 0)] * 2 == [(reply.status, reply.code) for reply in (wrong, revoked)]


def test_foreign_user_agent_is_refused(rest: RestClient) -> None:
    """Discord wants to know which library asks."""
    assert 40333 == rest("GET", "/users/@me", headers={"User-Agent": "curl/8"}).code


def test_unknown_things_have_their_own_codes(emulator: Emulator, rest: RestClient) -> None:
    """Route, guild, channel, member: each 404 says what is missing; an id that is none is a form error."""
    guild = emulator.guild_id

    assert (404, 0) == ((reply := rest("GET", "/nothing")).status, reply.code)
    assert 10004 == rest("GET", "/guilds/1").code
    assert 10003 == rest("GET", "/channels/1").code
    assert 10007 == rest("GET", f"/guilds/{guild}/members/1").code
    assert 50035 == rest("GET", "/channels/x").code


def test_channel_is_created_changed_and_deleted(emulator: Emulator, rest: RestClient) -> None:
    """A text channel in a category keeps its topic, takes a new one, and is gone after its deletion."""
    guild = f"/guilds/{emulator.guild_id}/channels"
    category = rest("POST", guild, {"name": "Vol 1", "type": 4}).json
    made = rest("POST", guild, {"name": "Data 0", "type": 0, "parent_id": category["id"], "topic": "t"})
    path = f"/channels/{made.json['id']}"
    changed = rest("PATCH", path, {"topic": "u", "name": "data-1"})
    deleted = rest("DELETE", path)

    assert ("Vol 1", 201, "data-0", category["id"]) == (
        category["name"],
        made.status,
        made.json["name"],
        made.json["parent_id"],
    )
    assert_conforms(made.json, "/guilds/{guild_id}/channels", "post", 201)
    assert_conforms(changed.json, "/channels/{channel_id}", "patch")
    assert_conforms(deleted.json, "/channels/{channel_id}", "delete")
    assert ("u", "data-1") == (changed.json["topic"], changed.json["name"])
    assert 10003 == rest("GET", path).code
    assert 10003 == rest("GET", path + "/messages").code


@pytest.mark.parametrize(
    "payload",
    [{}, {"name": ""}, {"name": "x" * 101}, {"name": "x", "type": 2}, {"name": "x", "parent_id": "1"}],
)
def test_channel_with_wrong_fields_is_refused(emulator: Emulator, rest: RestClient, payload: object) -> None:
    """What Discord would not make is a form error."""
    assert 50035 == rest("POST", f"/guilds/{emulator.guild_id}/channels", payload).code


def test_category_takes_fifty_channels(emulator: Emulator, rest: RestClient) -> None:
    """The fifty-first channel of a category is refused; deleting the category sets its channels free."""
    guild = f"/guilds/{emulator.guild_id}/channels"
    category = rest("POST", guild, {"name": "full", "type": 4}).json["id"]
    children = [rest("POST", guild, {"name": "c", "parent_id": category}) for _ in range(51)]
    rest("DELETE", f"/channels/{category}")

    assert [201] * 50 + [400] == [child.status for child in children]
    assert rest("GET", f"/channels/{children[0].json['id']}").json["parent_id"] is None
    for child in children[:50]:
        rest("DELETE", f"/channels/{child.json['id']}")


def test_body_that_is_no_json_is_refused(rest: RestClient, channel: str) -> None:
    """Broken JSON and other content types are told apart."""
    path = f"/channels/{channel}/messages"
    broken = rest("POST", path, body=b"{", headers={"Content-Type": "application/json"})
    listed = rest("POST", path, [])
    other = rest("POST", path, body=b"x", headers={"Content-Type": "text/plain"})

    assert [50109, 50035, 50035] == [broken.code, listed.code, other.code]


def test_ids_tell_their_time(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A snowflake holds the millisecond at which it was made, by the emulator's clock."""
    before = emulator.control("GET", "/clock")["now"] * 1000 - 1
    message = int(rest.send(channel, content="x").json["id"])

    assert before <= created_ms(message) <= emulator.control("GET", "/clock")["now"] * 1000


WRONG_SETTINGS: list[dict[str, Any]] = [
    {"latency": 1},
    {"latency_seconds": -1},
    {"latency_seconds": "1"},
    {"fsync": 1},
    {"rate_limit_mode": "x"},
    {"limits": {"nothing": {"limit": 1, "seconds": 1}}},
    {"limits": {"create_message": {"limit": 0, "seconds": 1}}},
    {"limits": {"create_message": {}}},
    {"limits": 1},
]
WRONG_FAULTS: list[dict[str, Any]] = [
    {},
    {"kind": "x"},
    {"kind": "reset", "whn": "after"},
    {"kind": "reset", "when": "never"},
    {"kind": "status", "status": 200},
    {"kind": "rate_limit", "scope": "all"},
    {"kind": "reset", "count": -1},
    {"kind": "reset", "nth": True},
]


def test_unknown_settings_and_faults_are_refused(emulator: Emulator) -> None:
    """A misspelt name or an impossible value is an error of the control API, not ignored; nothing changes then."""
    for changes in WRONG_SETTINGS:
        with pytest.raises(RuntimeError, match="PATCH"):
            emulator.settings(**{"nonce_seconds": 1.0} | changes)
    for fault in WRONG_FAULTS:
        with pytest.raises(RuntimeError, match="POST"):
            emulator.fault(**fault)

    assert 180.0 == emulator.settings()["nonce_seconds"]
    assert [] == emulator.faults()


MANAGE_CHANNELS, VIEW, SEND, MANAGE_MESSAGES, ATTACH, HISTORY = 1 << 4, 1 << 10, 1 << 11, 1 << 13, 1 << 15, 1 << 16
NEEDED = MANAGE_CHANNELS | VIEW | SEND | MANAGE_MESSAGES | ATTACH | HISTORY


@pytest.mark.parametrize("in_channel", [False, True])
@pytest.mark.parametrize(
    ("missing", "method", "path", "payload", "code"),
    [
        (SEND, "POST", "/channels/{channel}/messages", {"content": "x"}, 50013),
        (VIEW, "POST", "/channels/{channel}/messages", {"content": "x"}, 50001),
        (VIEW, "GET", "/channels/{channel}/messages", None, 50001),
        (HISTORY, "GET", "/channels/{channel}/messages/{message}", None, 50013),
        (MANAGE_MESSAGES, "POST", "/channels/{channel}/messages/bulk-delete", {"messages": ["1", "2"]}, 50013),
        (MANAGE_CHANNELS, "PATCH", "/channels/{channel}", {"topic": "x"}, 50013),
        (MANAGE_CHANNELS, "DELETE", "/channels/{channel}", None, 50013),
    ],
)
def test_missing_permission_is_refused(
    emulator: Emulator,
    rest: RestClient,
    channel: str,
    in_channel: bool,
    missing: int,
    method: str,
    path: str,
    payload: object,
    code: int,
) -> None:
    """Each request needs what Discord asks for, in the guild and in the channel; without, nothing happens."""
    message = rest.send(channel, content="hello").json["id"]
    path = path.format(channel=channel, message=message)
    if in_channel:
        emulator.settings(permissions=NEEDED, denied={channel: missing})
    else:
        emulator.settings(permissions=NEEDED & ~missing)
    refused = rest(method, path, payload)
    emulator.settings(permissions=NEEDED, denied={"1": missing})

    assert (403, code) == (refused.status, refused.code)
    assert 1 == len(rest.messages(channel))


def test_files_and_new_channels_need_permissions_of_their_own(
    emulator: Emulator, rest: RestClient, channel: str
) -> None:
    """Text may be sent without Attach Files, files may not; channels are made with Manage Channels."""
    emulator.settings(permissions=NEEDED & ~(ATTACH | MANAGE_CHANNELS))

    assert 200 == rest.send(channel, content="hello").status
    assert (403, 50013) == ((refused := rest.send(channel, b"file")).status, refused.code)
    assert 403 == rest("POST", f"/guilds/{emulator.guild_id}/channels", {"name": "x"}).status


def test_without_history_a_listing_is_empty(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Not an error: that is the trap."""
    rest.send(channel, content="hello")
    emulator.settings(permissions=NEEDED & ~HISTORY)

    assert [] == rest.messages(channel)


def test_bot_that_was_not_invited_sees_no_guild(emulator: Emulator, rest: RestClient) -> None:
    """Neither in its list nor by its id."""
    emulator.settings(in_guild=False)

    assert [] == rest("GET", "/users/@me/guilds").json
    assert 404 == rest("GET", f"/guilds/{emulator.guild_id}/channels").status


def test_denied_permissions_show_in_the_channel(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """As overwrites for everyone, as Discord describes them."""
    emulator.settings(permissions=NEEDED, denied={channel: SEND})
    reply = rest("GET", f"/channels/{channel}")

    assert [str(SEND)] == [each["deny"] for each in reply.json["permission_overwrites"]]
    assert_conforms(reply.json, "/channels/{channel_id}")
