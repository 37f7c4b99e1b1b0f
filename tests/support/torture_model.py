"""What a directory may look like after a crash: the states it went through since the last fsync. Pure.

The promise that is modelled is exact, and stronger than POSIX asks:

- All changes of names, sizes, modes and extended attributes of one volume are kept in the order in which they were
  made, and an fsync of anything keeps all before it. So after a crash the whole tree is as it was after some one of
  the operations since the last fsync, or in the middle of a write, which the kernel cuts at pages.
- Each byte of a file that is there is the one of that moment, or of a later one: a write that was made when the
  daemon died may be there already. Never an older one, never a zero that nobody wrote or left as a hole, never a
  byte of another file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Node:
    """A regular file."""

    content: bytes
    mode: int
    xattrs: frozenset[tuple[str, bytes]] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """A tree: where its names lead, and its directories."""

    names: Mapping[str, int] = field(default_factory=dict)
    """Path -> number of the node; two names of one node are hard links."""
    nodes: Mapping[int, Node] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)
    """Path -> mode."""
    operation: str = "begin"
    """What led to this state."""
    growing: int | None = None
    """The node that the operation wrote to: it may be caught between its sizes before and after."""

    def node(self, path: str) -> Node:
        """The file that a path leads to."""
        return self.nodes[self.names[path]]

    def with_node(self, number: int, node: Node) -> State:
        """The state after a change of one file."""
        return replace(self, nodes={**self.nodes, number: node}, growing=None)

    def with_names(self, names: Mapping[str, int]) -> State:
        """The state after a change of names; nodes without one are gone."""
        left = frozenset(names.values())
        nodes = {number: node for number, node in self.nodes.items() if number in left}
        return replace(self, names=dict(names), nodes=nodes, growing=None)


class History:
    """The states of one tree from the last fsync to now."""

    def __init__(self, state: State | None = None) -> None:
        self.states: list[State] = [state or State()]

    @property
    def now(self) -> State:
        """The newest state."""
        return self.states[-1]

    def add(self, state: State) -> None:
        """An operation is about to be made."""
        self.states.append(state)

    def settled(self) -> None:
        """Everything so far was fsynced, or the tree was seen after a mount: this is the oldest legal state now."""
        del self.states[:-1]

    def answered(self) -> None:
        """Nobody crashed: all operations that were answered are there, and the last may have been cut short."""
        del self.states[:-2]

    def verdict(self, seen: State) -> str | None:
        """None when `seen` is legal after a crash; else why it is not, state by state."""
        reasons = []
        for index in range(len(self.states) - 1, -1, -1):
            reason = self._against(index, seen)
            if reason is None:
                return None
            reasons.append(f"after [{index}] {self.states[index].operation}: {reason}")
        return "\n".join(reasons)

    def _against(self, index: int, seen: State) -> str | None:
        state = self.states[index]
        reason = structure_difference(state, seen)
        if reason is None:
            return self._contents_difference(index, state, seen)
        if index == 0 or state.growing is None:
            return reason
        # Caught in the middle of a write: the names of now, a size in between, bytes of before or after.
        middle = _caught(self.states[index - 1], state, seen)
        if middle is None or structure_difference(middle, seen) is not None:
            return reason
        return self._contents_difference(index - 1, middle, seen)

    def _contents_difference(self, since: int, state: State, seen: State) -> str | None:
        for path, number in state.names.items():
            versions = [later.nodes[number].content for later in self.states[since:] if number in later.nodes]
            wrong = first_illegal(seen.node(path).content, versions)
            if wrong is not None:
                return f"{path}: {wrong}"
        return None


def _caught(before: State, after: State, seen: State) -> State | None:
    number = after.growing
    assert number is not None
    path = next((path for path, node in after.names.items() if node == number), None)
    if path is None or path not in seen.names or number not in before.nodes:
        return None
    size = len(seen.node(path).content)
    old, new = before.nodes[number].content, after.nodes[number].content
    if not (len(old) < size < len(new)) or size % PAGE_BYTES:
        return None
    return after.with_node(number, replace(after.nodes[number], content=new[:size]))


def structure_difference(expected: State, seen: State) -> str | None:
    """The first difference in anything but the bytes of files; None when there is none."""
    if dict(expected.directories) != dict(seen.directories):
        return f"directories {dict(expected.directories)}, seen {dict(seen.directories)}"
    if expected.names.keys() != seen.names.keys():
        return f"names {sorted(expected.names)}, seen {sorted(seen.names)}"
    for path, number in expected.names.items():
        node, other = expected.nodes[number], seen.node(path)
        if len(node.content) != len(other.content):
            return f"{path}: {len(node.content)} bytes, seen {len(other.content)}"
        if (node.mode, node.xattrs) != (other.mode, other.xattrs):
            return f"{path}: mode {node.mode:o}, {sorted(node.xattrs)}; seen {other.mode:o}, {sorted(other.xattrs)}"
        if _names_of(expected, number) != _names_of(seen, seen.names[path]):
            return f"{path}: names {_names_of(expected, number)}, seen {_names_of(seen, seen.names[path])}"
    return None


def exact_difference(expected: State, seen: State) -> str | None:
    """The first difference of any kind; None when there is none."""
    reason = structure_difference(expected, seen)
    if reason is not None:
        return reason
    for path in expected.names:
        wrong = first_illegal(seen.node(path).content, [expected.node(path).content])
        if wrong is not None:
            return f"{path}: {wrong}"
    return None


def _names_of(state: State, number: int) -> list[str]:
    return sorted(path for path, node in state.names.items() if node == number)


def first_illegal(seen: bytes, versions: Sequence[bytes]) -> str | None:
    """Where `seen` has a byte that none of `versions` has at that place; None when there is no such place."""
    distinct = list({id(version): version for version in versions}.values())
    if seen in distinct:
        return None
    bad = [place for start in range(0, len(seen), PAGE_BYTES) for place in _illegal_in(seen, start, distinct)]
    if not bad:
        return None
    there = seen[bad[0] : bad[0] + 16]
    wanted = [version[bad[0] : bad[0] + 16].hex() for version in distinct]
    return (
        f"{len(bad)} illegal bytes of {len(seen)} from {bad[0]} to {bad[-1]}, in runs {runs(bad)[:8]}: "
        f"{there.hex()}, expected one of {wanted}"
    )


def _illegal_in(seen: bytes, start: int, versions: Sequence[bytes]) -> Iterator[int]:
    block = seen[start : start + PAGE_BYTES]
    end = start + len(block)
    if any(version[start:end] == block for version in versions):
        return
    for place in range(start, end):
        if not any(place < len(version) and version[place] == seen[place] for version in versions):
            yield place


def runs(places: Iterable[int]) -> list[tuple[int, int]]:
    """(first, past the last) of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found
