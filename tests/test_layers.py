"""Imports point down the layers of the design, and only there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "disfs"

# Lowest first. A module may import from its own layer entry and from every entry on a lower line.
# Entries on one line are blind to each other.
LAYERS = [
    {"disfs", "disfs.values", "disfs.errors"},
    {
        "disfs.spans",
        "disfs.posix_acl",
        "disfs.callers",
        "disfs.superblock",
        "disfs.message_texts",
        "disfs.private_files",
        "disfs.mountpoint",
        "disfs.allocator",
        "disfs.collector",
        "disfs.background",
        "disfs.quantities",
        "disfs.service_manager",
        "disfs.desktop",
        "disfs.elf_imports",
    },
    {"disfs.status_report", "disfs.toml_files"},
    {"disfs.metrics"},
    {"disfs.report_files"},
    {"disfs.config", "disfs.logs", "disfs.volume_state", "disfs.local_emulator"},
    {"disfs.metadata", "disfs.chunkstore"},
    {"disfs.mount_options", "disfs.mount_recovery"},
    {"disfs.mount_plan"},
    {"disfs.handles", "disfs.kernel_clock", "disfs.interrupts", "disfs.store_failures"},
    {"disfs.file_io"},
    {"disfs.filesystem"},
    {
        "disfs.control",
        "disfs.volume",
        "disfs.new_superblock",
        "disfs.local_volume",
        "disfs.late_forgets",
        "disfs.polled_loop",
        "disfs.tree_walk",
        "disfs.session_hook",
    },
    {
        "disfs.fuse_ops",
        "disfs.warmups",
        "disfs.trash_desk",
        "disfs.file_desk",
        "disfs.event_desk",
        "disfs.discord_watch",
        "disfs.recovery",
    },
    {"disfs.snapshot_desk"},
    {"disfs.controls", "disfs.fuse_variants"},
    {"disfs.serving"},
    {"disfs.daemon"},
    {"disfs.cli"},
    {"disfs.__main__"},
]
APART = {"disfs.emulator", "disfs.web"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`disfs/metadata/store.py` -> `disfs.metadata.store`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_entry(module: str) -> str:
    """The longest entry of LAYERS or APART that holds `module`."""
    entries = [e for layer in [*LAYERS, APART] for e in layer if module == e or module.startswith(e + ".")]
    named = [e for e in entries if e != "disfs" or module == "disfs"]
    assert named, f"{module} stands in no layer: add it to LAYERS where the design puts it"
    return max(named, key=len)


def rank(entry: str) -> int:
    """The number of the layer, lowest first."""
    return next(n for n, layer in enumerate(LAYERS) if entry in layer)


def imports_of(path: Path) -> set[str]:
    """Every disfs module that a file imports, at any depth of the code, for types alone included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                is_module = (ROOT / Path(*below.split("."))).with_suffix(".py").exists() or (
                    ROOT / Path(*below.split(".")) / "__init__.py"
                ).exists()
                found.add(below if is_module else node.module)
    return {name for name in found if name == "disfs" or name.startswith("disfs.")}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downward(path: Path) -> None:
    """A module imports only from its own entry and from lower layers."""
    module = module_name(path)
    entry = layer_entry(module)
    for imported in imports_of(path):
        target = layer_entry(imported)
        if target in (entry, "disfs"):
            continue
        assert entry not in APART, f"{module} stands apart and may not import {imported}"
        assert target not in APART, f"{module} imports {imported}, which stands apart"
        assert rank(target) < rank(entry), f"{module} imports {imported}, which is not below it"


def test_fuse_stays_in_the_doors() -> None:
    """Only the doors know pyfuse3; only the discord transport knows discord.py; SQL stays in the metadata store."""
    allowed = {
        "pyfuse3": (
            "disfs.fuse_ops",
            "disfs.fuse_variants",
            "disfs.polled_loop",
            "disfs.session_hook",
            "disfs.serving",
        ),
        "discord": ("disfs.chunkstore.transport",),
        "sqlite3": ("disfs.metadata",),
        "aiosqlite": ("disfs.emulator", "disfs.recovery"),
        "asyncio": ("disfs.chunkstore.transport", "disfs.emulator"),
        "click": ("disfs.cli", "disfs.emulator"),
    }
    for path in MODULES:
        module = module_name(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                homes = allowed.get(name.split(".")[0])
                assert homes is None or any(module == h or module.startswith(h + ".") for h in homes), (
                    f"{module} imports {name}"
                )
