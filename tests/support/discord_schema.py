"""Success replies held against Discord's own OpenAPI file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

OPENAPI = Path(__file__).parent.parent / "emulator" / "discord-openapi.json"


@functools.cache
def _document() -> dict[str, Any]:
    return dict(json.loads(OPENAPI.read_text()))


@functools.cache
def _validator(path: str, method: str, status: str) -> Any:
    document = _document()
    schema = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator(
        schema | {"components": document["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


def assert_conforms(value: Any, path: str, method: str = "get", status: int = 200) -> None:
    """`value` is what the OpenAPI file says this operation answers."""
    errors = sorted(_validator(path, method, str(status)).iter_errors(value), key=str)
    assert not errors, [f"{list(error.absolute_path)}: {error.message}" for error in errors[:5]]
