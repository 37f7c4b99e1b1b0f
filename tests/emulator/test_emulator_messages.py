"""Sending, listing, editing and deleting messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.discord_schema import assert_conforms
from support.rest_client import RestClient, http_request, multipart

from disfs.emulator.upload import stored_filename

if TYPE_CHECKING:
    from pathlib import Path

    from support.emulator import Emulator


def test_sent_message_conforms_and_keeps_its_files(rest: RestClient, channel: str) -> None:
    """The answer to a send is complete by the OpenAPI file, names the files in order, and echoes the nonce."""
    reply = rest.send(channel, b"first", b"second!", content="hello", nonce="n-1")

    assert 200 == reply.status
    assert_conforms(reply.json, "/channels/{channel_id}/messages", "post")
    assert ("hello", "n-1") == (reply.json["content"], reply.json["nonce"])
    assert [("0.bin", 5), ("1.bin", 7)] == [(file["filename"], file["size"]) for file in reply.json["attachments"]]
    assert b"second!" == http_request(reply.json["attachments"][1]["url"]).body


def test_parts_may_come_in_any_order(rest: RestClient, channel: str) -> None:
    """Files count by their number and take name and description from the payload, even when that comes last."""
    payload = {"attachments": [{"id": 1, "filename": "b.bin", "description": "d"}, {"id": "0"}], "unknown": 1}
    body, content_type = multipart([("files[1]", "x", b"B"), ("files[0]", "a.bin", b"")], payload, payload_last=True)
    reply = rest("POST", f"/channels/{channel}/messages", body=body, headers={"Content-Type": content_type})

    found = [(file["filename"], file.get("description"), file["size"]) for file in reply.json["attachments"]]
    assert [("a.bin", None, 0), ("b.bin", "d", 1)] == found


def test_file_names_become_plain_ascii() -> None:
    """Spaces turn into underscores, other characters go; a name outside ASCII is replaced but for its ending."""
    assert ["a_b.bin", "ab.bin"] == [stored_filename("a b.bin"), stored_filename("a/b.bin")]
    replaced = stored_filename("Grüße.bin")
    assert replaced.isascii()
    assert replaced.endswith(".bin")


def test_renamed_file_keeps_its_first_name_as_title(rest: RestClient, channel: str) -> None:
    """What Discord had to rename is still known by its title."""
    body, content_type = multipart([("files[0]", "a b.bin", b"x")])
    reply = rest("POST", f"/channels/{channel}/messages", body=body, headers={"Content-Type": content_type})

    assert ("a_b.bin", "a b") == (reply.json["attachments"][0]["filename"], reply.json["attachments"][0]["title"])


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, 50006),
        ({"content": "x" * 2001}, 50035),
        ({"content": 1}, 50035),
        ({"content": "x", "nonce": "n" * 26}, 50035),
        ({"content": "x", "nonce": True}, 50035),
        ({"content": "x", "attachments": [{"id": 0}]}, 50035),
        ({"content": "x", "attachments": {}}, 50035),
    ],
)
def test_wrong_message_is_refused(rest: RestClient, channel: str, payload: object, code: int) -> None:
    """Empty, too long or malformed messages are answered with Discord's codes and not stored."""
    reply = rest("POST", f"/channels/{channel}/messages", payload)

    assert (400, code) == (reply.status, reply.code)
    assert [] == rest.messages(channel)


def test_eleventh_file_is_refused(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A message holds ten files at the most, and none of eleven stays behind."""
    assert 50035 == rest.send(channel, *[b"x"] * 11).code
    assert 10 == len(rest.send(channel, *[b"x"] * 10).json["attachments"])
    assert [] == list((emulator.data_dir / "incoming").iterdir())


def test_file_above_the_limit_is_refused_and_the_limit_moves(
    emulator: Emulator, rest: RestClient, channel: str
) -> None:
    """One byte too many is 413 with code 40005; the limit may change between two sends."""
    emulator.settings(attachment_limit_bytes=1000)
    reply = rest.send(channel, b"x" * 1001, b"x")

    assert (413, 40005) == (reply.status, reply.code)
    assert 200 == rest.send(channel, b"x" * 1000, b"x" * 1000).status
    emulator.settings(attachment_limit_bytes=999)
    assert 413 == rest.send(channel, b"x" * 1000).status
    emulator.settings(attachment_limit_bytes=1000, request_limit_bytes=1500)
    assert 413 == rest.send(channel, b"x" * 1000, b"x" * 1000).status
    assert 1 == len(rest.messages(channel))
    assert [] == list((emulator.data_dir / "incoming").iterdir())


def test_message_to_a_category_is_refused(emulator: Emulator, rest: RestClient) -> None:
    """Categories hold channels, not messages."""
    category = rest("POST", f"/guilds/{emulator.guild_id}/channels", {"name": "c", "type": 4}).json["id"]

    assert 50008 == rest.send(category, b"x").code


def test_enforced_nonce_makes_one_message(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A repeat returns the first message and stores nothing, in any channel unless told otherwise."""
    other = rest.new_channel()
    first = rest.send(channel, b"one", nonce="same", enforce_nonce=True).json
    blobs = len(list((emulator.data_dir / "blobs").glob("*/*")))
    again = rest.send(channel, b"two", nonce="same", enforce_nonce=True).json
    elsewhere = rest.send(other, b"three", nonce="same", enforce_nonce=True).json
    emulator.settings(nonce_per_channel=True)
    separate = rest.send(other, b"four", nonce="same", enforce_nonce=True).json

    assert first["id"] == again["id"] == elsewhere["id"] != separate["id"]
    assert first["attachments"][0]["id"] == again["attachments"][0]["id"]
    assert blobs + 1 == len(list((emulator.data_dir / "blobs").glob("*/*")))


def test_nonce_without_the_flag_makes_two_messages(rest: RestClient, channel: str) -> None:
    """Only enforce_nonce protects from duplicates."""
    assert rest.send(channel, b"x", nonce="n").json["id"] != rest.send(channel, b"x", nonce="n").json["id"]


def test_nonce_of_a_deleted_message_is_unknown(rest: RestClient, channel: str) -> None:
    """A repeat after the deletion does not bring the message back."""
    message = rest.send(channel, b"x", nonce="gone", enforce_nonce=True).json["id"]
    rest("DELETE", f"/channels/{channel}/messages/{message}")
    reply = rest.send(channel, b"x", nonce="gone", enforce_nonce=True)

    assert (404, 10008) == (reply.status, reply.code)


def test_nonce_is_forgotten_after_its_window(own_emulator: Emulator) -> None:
    """Some minutes later the same nonce makes a new message; it is echoed by the create alone."""
    client = RestClient(own_emulator)
    channel = client.new_channel()
    first = client.send(channel, content="x", nonce=7, enforce_nonce=True).json
    own_emulator.shift_clock(179)
    within = client.send(channel, content="x", nonce=7, enforce_nonce=True).json
    own_emulator.shift_clock(2)
    later = client.send(channel, content="x", nonce=7, enforce_nonce=True).json

    assert first["id"] == within["id"] != later["id"]
    assert 7 == later["nonce"]
    path = f"/channels/{channel}/messages/{later['id']}"
    assert "nonce" not in client("GET", path).json
    own_emulator.settings(nonce_in_get=True)
    assert 7 == client("GET", path).json["nonce"]


def test_listing_pages_in_both_directions(rest: RestClient, channel: str) -> None:
    """Newest first always; before, after and around leave the anchor out or in as Discord does."""
    ids = [rest.send(channel, content=str(number)).json["id"] for number in range(6)]
    newest = ids[::-1]

    assert newest == rest.messages(channel)
    assert newest[:2] == rest.messages(channel, "?limit=2")
    assert newest[3:5] == rest.messages(channel, f"?limit=2&before={newest[2]}")
    assert newest[1:3] == rest.messages(channel, f"?limit=2&after={newest[3]}")
    assert newest[4:6] == rest.messages(channel, "?limit=2&after=0")
    assert newest[1:4] == rest.messages(channel, f"?limit=3&around={newest[2]}")
    assert [] == rest.messages(channel, f"?before={newest[5]}")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "before=x", "before=1&after=2"])
def test_listing_with_wrong_query_is_refused(rest: RestClient, channel: str, query: str) -> None:
    """Limits outside 1 to 100 and two anchors are form errors."""
    assert 50035 == rest("GET", f"/channels/{channel}/messages?{query}").code


def test_edit_keeps_only_the_listed_attachments(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Ids may be numbers; sizes and URLs that the client sends do not count; the dropped file goes."""
    emulator.settings(delete_grace_seconds=0.0)
    sent = rest.send(channel, b"keep", b"drop").json
    keep, drop = sent["attachments"]
    path = f"/channels/{channel}/messages/{sent['id']}"
    edited = rest("PATCH", path, {"attachments": [{"id": int(keep["id"]), "size": 9, "url": "http://x"}], "flags": 0})

    assert [(keep["id"], 4)] == [(file["id"], file["size"]) for file in edited.json["attachments"]]
    assert edited.json["edited_timestamp"] is not None
    assert_conforms(edited.json, "/channels/{channel_id}/messages/{message_id}", "patch")
    assert 404 == http_request(drop["url"]).status
    assert 50006 == rest("PATCH", path, {"attachments": []}).code
    assert "text" == rest("PATCH", path, {"content": "text"}).json["content"]


def test_deleted_message_is_gone_once(rest: RestClient, channel: str) -> None:
    """The first delete is 204 with an empty body, the second and every read 10008."""
    message = rest.send(channel, b"x").json["id"]
    path = f"/channels/{channel}/messages/{message}"
    deleted = rest("DELETE", path)

    assert (204, b"") == (deleted.status, deleted.body)
    assert [10008] * 3 == [
        rest(method, path, {} if method == "PATCH" else None).code for method in ("DELETE", "GET", "PATCH")
    ]
    assert [] == rest.messages(channel)


def test_message_is_found_in_its_channel_only(rest: RestClient, channel: str) -> None:
    """The id of a message in another channel is unknown."""
    other = rest.new_channel()
    message = rest.send(channel, content="x").json["id"]

    assert 10008 == rest("GET", f"/channels/{other}/messages/{message}").code
    assert 10008 == rest("DELETE", f"/channels/{other}/messages/{message}").code


def test_bulk_delete_takes_two_to_a_hundred(rest: RestClient, channel: str) -> None:
    """Counts outside that range and repeated ids are refused whole; unknown ids do no harm."""
    ids = [int(rest.send(channel, content="x").json["id"]) for _ in range(3)]
    path = f"/channels/{channel}/messages/bulk-delete"

    assert 50016 == rest("POST", path, {"messages": ids[:1]}).code
    assert 50016 == rest("POST", path, {"messages": list(range(ids[0], ids[0] + 101))}).code
    assert 50035 == rest("POST", path, {"messages": [ids[0], str(ids[0])]}).code
    assert 50035 == rest("POST", path, {}).code
    assert 3 == len(rest.messages(channel))
    assert 204 == rest("POST", path, {"messages": [ids[0], str(ids[1]), ids[2] + 1]}).status
    assert [str(ids[2])] == rest.messages(channel)


def test_bulk_delete_refuses_old_messages(own_emulator: Emulator) -> None:
    """One id older than two weeks makes the whole call fail."""
    client = RestClient(own_emulator)
    channel = client.new_channel()
    old = client.send(channel, content="old").json["id"]
    own_emulator.shift_clock(14 * 86_400 + 1)
    young = client.send(channel, content="young").json["id"]
    refused = client("POST", f"/channels/{channel}/messages/bulk-delete", {"messages": [old, young]})

    assert (400, 50034) == (refused.status, refused.code)
    assert [young, old] == client.messages(channel)


def test_foreign_content_is_hidden_without_the_intent(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """What another author wrote is blank until the message content intent is on, and cannot be edited."""
    planted = emulator.control("POST", "/messages", {"channel_id": channel, "content": "secret"})["id"]
    path = f"/channels/{channel}/messages/{planted}"
    hidden = rest("GET", path).json
    emulator.settings(message_content_intent=True)

    assert ["", "secret"] == [hidden["content"], rest("GET", path).json["content"]]
    assert 50005 == rest("PATCH", path, {"content": "mine"}).code


def test_fresh_message_is_invisible_for_the_delay(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Eventual consistency: neither get nor list see a message that is too young, a repeated nonce does."""
    emulator.settings(visibility_delay_seconds=3600.0)
    message = rest.send(channel, content="x", nonce="seen", enforce_nonce=True).json["id"]

    assert 10008 == rest("GET", f"/channels/{channel}/messages/{message}").code
    assert [] == rest.messages(channel)
    assert message == rest.send(channel, content="x", nonce="seen", enforce_nonce=True).json["id"]
    emulator.settings(visibility_delay_seconds=0.0)
    assert [message] == rest.messages(channel)


def test_counters_show_requests_and_stored_bytes(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Requests are counted by route, answers by status, and what is stored is known."""
    before = emulator.counters()
    rest.send(channel, b"12345")
    rest("GET", "/channels/1")
    after = emulator.counters()

    assert (1, 1) == (after["requests"]["create_message"], after["requests"]["get_channel"])
    assert {"404": 1} == after["statuses"]["get_channel"]
    assert (1, 5) == (
        after["messages"] - before["messages"],
        after["attachment_bytes"] - before["attachment_bytes"],
    )
    emulator.reset_counters()
    assert {} == emulator.counts()


def test_purge_frees_the_files_of_deleted_messages(own_emulator: Emulator, tmp_path: Path) -> None:
    """Once the grace is over the bytes leave the disk; the tombstone goes later still."""
    client = RestClient(own_emulator)
    channel = client.new_channel()
    message = client.send(channel, b"x", nonce="n", enforce_nonce=True).json["id"]
    client("DELETE", f"/channels/{channel}/messages/{message}")
    own_emulator.control("POST", "/purge")
    kept = list((tmp_path / "data" / "blobs").glob("*/*"))
    own_emulator.shift_clock(121)
    own_emulator.control("POST", "/purge")

    assert 1 == len(kept)
    assert [] == list((tmp_path / "data" / "blobs").glob("*/*"))
    own_emulator.shift_clock(7200)
    own_emulator.control("POST", "/purge")
    assert [] == client.messages(channel)
