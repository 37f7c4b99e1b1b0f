"""From passphrase to volume key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.errors import CorruptDataError, ExitCode, UserError

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.superblock import Superblock


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
