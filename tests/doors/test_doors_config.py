"""Paths, configuration files, names."""

from __future__ import annotations

import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disfs.config import (
    GlobalConfig,
    Paths,
    VolumeConfig,
    VolumeSettings,
    check_volume_name,
    load_global,
    load_volume,
    save_global,
    save_volume,
    volume_names,
)
from disfs.errors import ExitCode, UserError
from disfs.quantities import Bandwidth
from disfs.superblock import Superblock
from disfs.toml_files import toml_text
from disfs.values import ChannelId, GuildId

SUPERBLOCK = Superblock(
    volume_id=bytes(range(16)),
    name="photos",
    created="2026-11-22T20:00:00+00:00",
    chunk_bytes=131072,
    data_channels=(ChannelId(11), ChannelId(12)),
    wrapped_key=b"sealed",
)
VOLUME = VolumeConfig(
    name="photos",
    guild=GuildId(1 << 60),
    category=ChannelId(9),
    index_channel=ChannelId(10),
    superblock=SUPERBLOCK,
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"DISFS_HOME": str(tmp_path)})


def test_home_holds_all_three_directories(tmp_path: Path) -> None:
    """DISFS_HOME moves configuration, state and cache under one root."""
    paths = Paths.from_environment({"DISFS_HOME": str(tmp_path)})
    assert (tmp_path / "config", tmp_path / "state", tmp_path / "cache") == (paths.config, paths.state, paths.cache)


def test_cache_without_home_lies_in_the_state_directory() -> None:
    """What cleaners of ~/.cache wipe must not hold the only copy of unsent data."""
    paths = Paths.from_environment({})
    assert paths.state / "cache" == paths.cache
    assert ".cache" not in paths.cache.parts


def test_volume_survives_saving_and_loading(paths: Paths) -> None:
    """A volume's description is read back as it was written, settings that differ from the defaults included."""
    volume = replace(
        VOLUME,
        emulator=True,
        api_url="http://127.0.0.1:1/api/v10",
        passphrase_file=Path("/secret/pass"),
        token_file=Path("/secret/token"),
        settings=VolumeSettings(
            cache_bytes=1 << 30,
            dirty_limit_bytes=1 << 20,
            writeback_delay_seconds=0.5,
            readahead_bytes=0,
            kernel_listings=False,
            kernel_cache_seconds=1.5,
            has_acls=False,
            bandwidth=Bandwidth(1 << 20, None),
        ),
    )
    save_volume(paths, volume)
    assert volume == load_volume(paths, "photos")


def test_files_and_directories_are_private(paths: Paths) -> None:
    """Configuration files have mode 0600, the directories made for them 0700."""
    save_volume(paths, VOLUME)
    file = paths.volume_file("photos")
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert {0o700} == {stat.S_IMODE(d.stat().st_mode) for d in (file.parent, paths.config)}


def test_saving_leaves_no_temporary_file(paths: Paths) -> None:
    """A file is replaced as a whole, and nothing else stays behind."""
    save_volume(paths, VOLUME)
    save_volume(paths, replace(VOLUME, emulator=True))
    assert ["photos.toml"] == [path.name for path in paths.volume_file("photos").parent.iterdir()]


def test_cache_is_tagged(paths: Paths) -> None:
    """Backup programs find CACHEDIR.TAG in the cache directory."""
    paths.make_volume_directories("photos")
    assert (paths.cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert paths.volume_cache("photos").is_dir()


def test_global_config_survives_saving_and_loading(paths: Paths) -> None:
    """config.toml is read back as it was written."""
    config = GlobalConfig(token="a.b.c", api_url="https://x", default_volume="photos")
    save_global(paths, config)
    assert config == load_global(paths)


def test_missing_global_config_means_defaults(paths: Paths) -> None:
    """Without config.toml everything has its default."""
    assert GlobalConfig() == load_global(paths)


def test_secrets_stay_out_of_repr() -> None:
    """Neither the token nor the wrapped key shows up where an object is printed."""
    assert "very.secret" not in repr(GlobalConfig(token="very.secret"))
    assert "sealed" not in repr(VOLUME)


def test_unknown_volume_names_those_that_exist(paths: Paths) -> None:
    """Asking for a volume that is not there lists the ones that are."""
    save_volume(paths, VOLUME)
    with pytest.raises(UserError, match="known volumes: photos") as caught:
        load_volume(paths, "music")
    assert ExitCode.NO_SUCH_VOLUME == caught.value.exit_code
    assert ["photos"] == volume_names(paths)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("token = ", "not valid TOML"),
        ("token = 5", "token must be of type str"),
        ("tokn = 'x'", "tokn means nothing here"),
        ("\xff", "not valid TOML"),
    ],
)
def test_broken_global_config_is_one_line(paths: Paths, text: str, problem: str) -> None:
    """A configuration file that makes no sense says where and what, in one line."""
    paths.config.mkdir(parents=True)
    paths.config_file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=problem) as caught:
        load_global(paths)
    assert ExitCode.CONFIG_INVALID == caught.value.exit_code
    assert str(paths.config_file) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("guild_id = ", "gild_id = ", "guild_id is missing"),
        ("guild_id = ", 'guild_id = "', "not valid TOML"),
        ("emulator = false", "emulator = 1", "emulator must be of type bool"),
        ("disfs-superblock", "something else", "not a disfs superblock"),
    ],
)
def test_broken_volume_file_is_one_line(paths: Paths, old: str, new: str, problem: str) -> None:
    """A volume's description is checked field by field."""
    save_volume(paths, VOLUME)
    file = paths.volume_file("photos")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=problem) as caught:
        load_volume(paths, "photos")
    assert ExitCode.CONFIG_INVALID == caught.value.exit_code


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("cache_bytes = 1", "cache_bytes must be at least"),
        ("cache_bytes = 1.5", "cache_bytes must be of type int"),
        ("cache_bites = 1", "cache_bites means nothing"),
        ("writeback_delay_seconds = -1", "writeback_delay_seconds must lie"),
        ("kernel_cache_seconds = -1", "kernel_cache_seconds must lie"),
        ("readahead_bytes = -1", "readahead_bytes must lie"),
        ("kernel_listings = 1", "kernel_listings must be of type bool"),
        ('bandwidth = "fast"', "'fast' is not a bandwidth limit"),
        ("bandwidth = 5", "bandwidth must be of type str"),
    ],
)
def test_broken_setting_is_one_line(paths: Paths, line: str, problem: str) -> None:
    """A volume's settings are checked one by one."""
    save_volume(paths, VOLUME)
    file = paths.volume_file("photos")
    file.write_text(f"{file.read_text()}[settings]\n{line}\n")
    with pytest.raises(UserError, match=problem) as caught:
        load_volume(paths, "photos")
    assert ExitCode.CONFIG_INVALID == caught.value.exit_code


def test_configuration_that_others_may_read_holds_no_token(paths: Paths) -> None:
    """A token in it is refused, with the command that mends it; without one the file is nobody's secret."""
    save_global(paths, GlobalConfig(token="very.secret"))
    paths.config_file.chmod(0o644)
    with pytest.raises(UserError, match=f"'chmod 600 {paths.config_file}'") as caught:
        load_global(paths)
    assert ExitCode.CONFIG_INVALID == caught.value.exit_code
    save_global(paths, GlobalConfig(default_volume="photos"))
    paths.config_file.chmod(0o644)
    assert "photos" == load_global(paths).default_volume


def test_unknown_key_is_told_what_is_allowed(paths: Paths) -> None:
    """File, key, and the keys that there are."""
    paths.config.mkdir(parents=True)
    paths.config_file.write_text("tokn = 'x'")
    with pytest.raises(
        UserError, match=r"tokn means nothing here; allowed are api_url, .*, token, token_file"
    ) as caught:
        load_global(paths)
    assert str(paths.config_file) in str(caught.value)


def test_value_of_the_wrong_type_is_not_shown(paths: Paths) -> None:
    """It may be a secret; what is wanted is said in words."""
    paths.config.mkdir(parents=True)
    paths.config_file.write_text("token = ['very.secret']")
    with pytest.raises(UserError, match=r"type str \(a text in quotation marks\), not list") as caught:
        load_global(paths)
    assert "very.secret" not in str(caught.value)


def test_unwritable_config_directory_is_state_unusable(paths: Paths) -> None:
    """A directory that cannot be written is named, with its own exit code."""
    paths.config.parent.mkdir(exist_ok=True)
    paths.config.write_text("a file where a directory should be")
    with pytest.raises(UserError, match=str(paths.config)) as caught:
        save_volume(paths, VOLUME)
    assert ExitCode.STATE_UNUSABLE == caught.value.exit_code


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a,b", "-x", "ä", "x" * 65, "a b", "a\n"])
def test_names_that_would_break_something_are_refused(name: str) -> None:
    """A volume's name is safe as file name, mount source and category."""
    with pytest.raises(UserError) as caught:
        check_volume_name(name)
    assert ExitCode.USAGE == caught.value.exit_code


_SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.one_of(_SCALARS, st.lists(_SCALARS))))
def test_toml_text_is_read_back_equal(table: dict[str, str | int]) -> None:
    """Whatever the writer writes, the standard library's reader reads back equal."""
    assert table == tomllib.loads(toml_text(table))
