"""The multipart parser against bodies cut at any place."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from disfs.emulator.multipart import (
    MAX_HEADER_BYTES,
    MalformedMultipartError,
    MultipartParser,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
)

# Contents made of what delimiters are made of find more mistakes than random bytes do.
contents = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"X", b"\r\n--X", b"\r\n--", b"a"]), max_size=12).map(
    b"".join
)


def body_of(parts: list[bytes], boundary: bytes) -> bytes:
    text = b"".join(
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="p"\r\n\r\n' + part + b"\r\n" for part in parts
    )
    return text + b"--" + boundary + b"--\r\n"


def parse(pieces: list[bytes], boundary: str) -> list[bytes]:
    parser = MultipartParser(boundary)
    found: list[bytes] = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartBegin):
                found.append(b"")
            elif isinstance(event, PartData):
                found[-1] += event.data
    parser.close()
    return found


@settings(deadline=None)  # other work on the machine is no failure
@given(parts=st.lists(contents, max_size=4), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_parser_gives_the_parts_back_however_the_body_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    """Where the network cuts the body makes no difference to what its parts hold."""
    body = body_of(parts, b"XX")
    assume(not any(b"\r\n--XX" in b"\r\n" + part for part in parts))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]

    assert parts == parse(pieces, "XX")


def test_parser_gives_names_and_types() -> None:
    """A file part tells its name, its file name with quotes undone, and its type."""
    body = (
        b'--b\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name="files[0]"; filename="a\\"b.bin"'
        b"\r\n\r\nhi\r\n--b--"
    )

    events = list(MultipartParser("b").feed(body))

    assert [PartBegin("files[0]", 'a"b.bin', "text/plain"), PartData(b"hi"), PartEnd()] == events


def test_parser_ignores_text_around_the_parts() -> None:
    """A preamble and an epilogue belong to no part."""
    assert [b"1"] == parse([b"hello\r\n" + body_of([b"1"], b"b") + b"bye --b\r\n--b"], "b")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'--b\r\nContent-Disposition: form-data; name="p"\r\n\r\nhalf',
        b"--b!!",
        b"--b\r\nno colon\r\n\r\n\r\n--b--",
        b"--b\r\nContent-Type: text/plain\r\n\r\n\r\n--b--",
        b"--b\r\nX: " + b"x" * (MAX_HEADER_BYTES + 1) + b"\r\n\r\n\r\n--b--",
    ],
)
def test_parser_refuses_what_is_no_form(body: bytes) -> None:
    """A body that is cut off, has no part names or endless headers is an error, not data."""
    with pytest.raises(MalformedMultipartError):
        parse([body], "b")


def test_boundary_of_other_content_types_is_refused() -> None:
    """Only multipart/form-data with a boundary can be parsed."""
    assert "x y" == boundary_of('multipart/form-data; boundary="x y"')
    for content_type in ("application/json", "multipart/form-data", "multipart/mixed; boundary=b", ""):
        with pytest.raises(MalformedMultipartError):
            boundary_of(content_type)
