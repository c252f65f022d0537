"""wgmp: a userspace WireGuard gateway that spreads its cryptography over processes."""

__version__ = "0.1.0"
