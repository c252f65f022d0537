"""Hostile and unlucky peers: raw WireGuard over UDP against a running gateway."""
