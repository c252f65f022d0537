"""What pyproject.toml cannot say: with WGMP_COMPILE=1 the roles' Python is compiled, too.

mypyc makes extension modules of the modules below, as they are. Without it they are interpreted
(docs/adr/0021).
"""

import os
from pathlib import Path

from setuptools import setup

# What runs in every turn of a role's loop, and the reference fast path. Nothing else would gain.
_DIRECTORIES = ("roles", "worker", "fastpath")
_MODULES = ("process", "interest", "role", "ring", "record", "stream", "counters", "peertable")
_MODULES += ("datagrams", "peerdrops", "tun")
_PROTOCOL = ("ecn", "ip", "keypair", "keypairs", "outbound", "outcome", "peer", "replay", "timers")


def compiled():
    """Return the extension modules to build, none unless asked."""
    if os.environ.get("WGMP_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    paths = [Path(f"wgmp/{name}.py") for name in _MODULES]
    paths += [Path(f"wgmp/protocol/{name}.py") for name in _PROTOCOL]
    for directory in _DIRECTORIES:
        paths += sorted(Path("wgmp", directory).glob("[!_]*.py"))
    # Built apart from the libraries that it uses, their types are not known.
    options = ["--config-file=", "--ignore-missing-imports"]
    return mypycify([*options, *map(str, paths)], group_name="wgmp")


setup(ext_modules=compiled())
