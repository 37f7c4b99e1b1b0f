"""TOML files: read with types that are checked and keys that must be known, and written."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from disfs.errors import ExitCode, UserError
from disfs.private_files import unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

Scalar: TypeAlias = str | int | float | bool
Table: TypeAlias = Mapping[str, "Scalar | Sequence[Scalar] | Table | None"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WORDS: dict[type, str] = {
    str: "a text in quotation marks",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
}
"""What TOML's types are called for people."""


class TableReader:
    """Takes typed values out of a TOML table and notices what nobody asked for."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self._path = path
        self._rest = dict(table)
        self._known: set[str] = set()

    def invalid(self, problem: str) -> UserError:
        """The error that says what is wrong with the file."""
        return UserError(f"{self._path}: {problem}; correct the file", ExitCode.CONFIG_INVALID)

    def get(self, key: str, kind: type) -> Any:
        """The value of a key, None without one. CONFIG_INVALID for another type."""
        self._known.add(key)
        value = self._rest.pop(key, None)
        if kind is float and type(value) is int:
            return float(value)
        # type() and not isinstance(): TOML's true must not pass for the integer 1.
        if value is not None and type(value) is not kind:
            # Not the value: it may be a secret.
            raise self.invalid(f"{key} must be of type {kind.__name__} ({_WORDS[kind]}), not {type(value).__name__}")
        return value

    def need(self, key: str, kind: type) -> Any:
        """The value of a key that must be there. CONFIG_INVALID."""
        value = self.get(key, kind)
        if value is None:
            raise self.invalid(f"{key} is missing")
        return value

    def path(self, key: str) -> Path | None:
        """A path, relative to the directory of the file."""
        value = self.get(key, str)
        return None if value is None else self._path.parent / Path(value).expanduser()

    def finish(self) -> None:
        """CONFIG_INVALID if there are keys that nobody asked for."""
        if self._rest:
            unknown, known = ", ".join(sorted(self._rest)), ", ".join(sorted(self._known))
            raise self.invalid(f"{unknown} means nothing here; allowed are {known}")


def read_table(path: Path) -> dict[str, Any] | None:
    """The table that a TOML file holds; None when there is no file. CONFIG_INVALID, or what its reading fails with."""
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}; correct the file", ExitCode.CONFIG_INVALID) from error
    except OSError as error:
        raise unusable(error, path) from error


def toml_text(table: Table) -> str:
    """Write a table as TOML: scalars and lists of scalars first, then one level of sub-tables. None is left out."""
    plain = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if _is_plain(value)]
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            plain += ["", f"[{_key(key)}]"]
            plain += [f"{_key(k)} = {_value(v)}" for k, v in value.items() if _is_plain(v)]
    return "\n".join(plain) + "\n"


def _is_plain(value: object) -> bool:
    return value is not None and not isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, except that TOML wants DEL escaped and knows no surrogate pairs.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    assert isinstance(value, list | tuple)
    return "[" + ", ".join(_value(item) for item in value) + "]"
