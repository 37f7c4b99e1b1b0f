"""From passphrase to volume key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.cli.secrets import ask_passphrase, find_passphrase
from disfs.errors import CorruptDataError, ExitCode, UserError
from disfs.private_files import read_secret_text

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.config import VolumeConfig
    from disfs.superblock import Superblock


def volume_key(volume: VolumeConfig, passphrase_file: Path | None, key_file: Path | None = None) -> VolumeKey:
    """The key of a volume: what is named now comes before what is remembered, and a passphrase is asked for at last.

    NO_PASSPHRASE, and as `unlock` and `read_key_file`.
    """
    if key_file is not None:
        return read_key_file(volume.superblock, key_file)
    passphrase = find_passphrase(passphrase_file)
    if passphrase is None and volume.key_file is not None:
        return read_key_file(volume.superblock, volume.key_file)
    passphrase = passphrase or find_passphrase(volume.passphrase_file)
    try:
        return unlock(volume.superblock, passphrase or ask_passphrase(volume.name, confirm=False))
    except UserError as error:
        if error.exit_code is not ExitCode.WRONG_PASSPHRASE:
            raise
        hint = f"if it was changed on another machine, 'disfs passwd --fetch {volume.name}' takes that over"
        raise UserError(f"{error}; {hint}", ExitCode.WRONG_PASSPHRASE) from error


def read_key_file(superblock: Superblock, path: Path) -> VolumeKey:
    """The key in a key file of that volume. NO_PASSPHRASE, WRONG_PASSPHRASE."""
    from disfs.chunkstore.key_file import KeyFileError, key_of_text

    text = read_secret_text(path, "key", ExitCode.NO_PASSPHRASE)
    try:
        return key_of_text(text, superblock.volume_id)
    except KeyFileError as error:
        raise UserError(
            f"the key file {path} does not open volume {superblock.name!r}: {error}; name another file, or use the "
            "passphrase",
            ExitCode.WRONG_PASSPHRASE,
        ) from error


def unlock(superblock: Superblock, passphrase: str) -> VolumeKey:
    """The key of a volume. WRONG_PASSPHRASE, VOLUME_DAMAGED."""
    from disfs.chunkstore.keys import WrappedKey, WrongPassphraseError, unwrap

    try:
        return unwrap(WrappedKey.from_bytes(superblock.wrapped_key), passphrase)
    except WrongPassphraseError as error:
        raise UserError(
            f"the passphrase does not open volume {superblock.name!r}; try again, mind Caps Lock and keyboard layout",
            ExitCode.WRONG_PASSPHRASE,
        ) from error
    except CorruptDataError as error:
        raise UserError(
            f"the wrapped key of volume {superblock.name!r} is damaged ({error}); restore its configuration file",
            ExitCode.VOLUME_DAMAGED,
        ) from error
