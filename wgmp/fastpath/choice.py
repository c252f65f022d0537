"""Which fast path runs, the native one where it was built, else the reference one; whose AEAD."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from wgmp import system
from wgmp.errors import ConfigError
from wgmp.shm import STORES_ARE_ORDERED

if TYPE_CHECKING:
    from wgmp.fastpath.interface import FastPath


class Choice(StrEnum):
    """What the operator may ask for; AUTO takes the best that there is."""

    AUTO = "auto"
    NATIVE = "native"
    REFERENCE = "reference"


class Aead(StrEnum):
    """Whose ChaCha20-Poly1305 the native fast path uses. None is chosen that was not asked for."""

    RING = "ring"
    IPSEC_MB = "ipsec-mb"


def load(choice: Choice, aead: Aead = Aead.RING) -> FastPath:
    """Return the fast path; raises ConfigError when what is asked for cannot be had."""
    fastpath = _load(choice)
    if aead is Aead.RING:
        return fastpath
    if fastpath.NAME != Choice.NATIVE:
        raise ConfigError(f"the AEAD {aead} is for the native fast path: use ring with reference")
    from wgmp.fastpath import native

    try:
        return native.Native(native.IPSEC_MB)
    except ImportError as error:
        raise ConfigError(f"the AEAD {aead} cannot be used here: {error}: use ring") from error


def _load(choice: Choice) -> FastPath:
    if not system.FULL:
        if choice is Choice.NATIVE:
            raise ConfigError(
                "the native fast path makes system calls that only Linux has: use auto or reference"
            )
        choice = Choice.REFERENCE
    # Imported or not, it lends its fence to CPUs that need one.
    if choice is not Choice.REFERENCE or not STORES_ARE_ORDERED:
        missing = native_is_missing()
        if not missing and choice is not Choice.REFERENCE:
            from wgmp.fastpath import native

            return native.Native()
        if choice is Choice.NATIVE:
            raise ConfigError(
                f"there is no native fast path: {missing}: install wgmp again on a machine with "
                "Rust 1.88 or newer, or use the reference fast path"
            )
    from wgmp.fastpath import reference

    return reference


def native_is_missing() -> str:
    """Return why the native fast path cannot be used, "" if it can."""
    if not system.FULL:
        return "it is for Linux"
    try:
        from wgmp.fastpath import native  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def ipsec_mb_is_missing() -> str:
    """Return why the native fast path cannot have ipsec-mb's AEAD, "" if it can."""
    try:
        from wgmp.fastpath import native

        native.Native(native.IPSEC_MB)
    except ImportError as error:
        return str(error)
    return ""
