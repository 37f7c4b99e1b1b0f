"""From passphrase to volume key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.cli.secrets import ask_passphrase, find_passphrase
from disfs.errors import CorruptDataError, ExitCode, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.config import VolumeConfig
    from disfs.superblock import Superblock


def volume_key(volume: VolumeConfig, passphrase_file: Path | None) -> VolumeKey:
    """The key of a volume, its passphrase from where one is, else asked for. NO_PASSPHRASE, and as `unlock`."""
    passphrase = find_passphrase(passphrase_file or volume.passphrase_file)
    return unlock(volume.superblock, passphrase or ask_passphrase(volume.name, confirm=False))


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
