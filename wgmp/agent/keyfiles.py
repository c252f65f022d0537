"""Key files: found, made when a network has none yet, and watched over.

```
KEYS_DIRECTORY/NETWORK/private.key     made here when missing, unless private_key_path says where
                       public.key      to hand to peers; always that of private.key
```

Both are written whole or not at all, for their owner alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path

from wgmp import keys
from wgmp.agent.secret import SecretKey, Secrets, wipe
from wgmp.agent.settings import AgentSettings, NetworkSettings
from wgmp.errors import ConfigError
from wgmp.files import open_file, read_bytes, write_whole

log = logging.getLogger("wgmp")

_FILE_BYTES_MAX = 4096


def secrets_of(name: str, network: NetworkSettings, agent: AgentSettings) -> Secrets:
    """Return a network's secret keys, its private key made now when it has none yet.

    Raises ConfigError, which names the file and never holds what is in it.
    """
    private = _private(name, network, agent)
    preshared: dict[str, SecretKey] = {}
    try:
        for peer in network.peers:
            if peer.preshared_key_path is not None:
                preshared[peer.public_key] = read(Path(peer.preshared_key_path))
    except BaseException:
        Secrets(private, preshared).__exit__(None, None, None)
        raise
    return Secrets(private, preshared)


def _private(name: str, network: NetworkSettings, agent: AgentSettings) -> SecretKey:
    directory = Path(agent.keys_directory) / name
    if network.private_key_path is not None:
        return read(Path(network.private_key_path))
    path = directory / "private.key"
    if not path.exists():
        write(path, keys.generate_private_key())
        log.info("%s: a private key was made: %s", name, path)
    private = read(path)
    public = directory / "public.key"
    text = keys.to_base64(private.public()).encode()
    with contextlib.suppress(ConfigError):
        if read_bytes(public).strip() == text:
            return private
    write(public, private.public())
    log.info("%s: the public key, for the peers, is in %s", name, public)
    return private


def read(path: Path) -> SecretKey:
    """Return the key in a file; warn when others may read it. Raises ConfigError."""
    buffer = bytearray(_FILE_BYTES_MAX)
    try:
        with open(open_file(path), "rb", buffering=0) as file:
            mode = os.fstat(file.fileno()).st_mode
            length = file.readinto(buffer) or 0
        key = keys.private_key_from_input(bytes(buffer[:length]))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(path)) from None
    except keys.KeyFormatError:
        raise ConfigError(
            "this is no key: put in what `wgmp genkey` or `wgmp genpsk` prints", str(path)
        ) from None
    finally:
        wipe(buffer)
    if stat.S_IMODE(mode) & 0o077:
        log.warning("%s can be read by others than its owner: chmod 600 %s", path, path)
    return SecretKey(key)


def write(path: Path, key: bytes) -> None:
    """Put a key into a file of mode 0600, whole or not at all. Raises ConfigError.

    Its directory is made, for its owner alone, when it is missing.
    """
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", str(directory)) from error
    try:
        write_whole(path, keys.to_base64(key).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from error
