"""The roles, one module each. They never import each other; rings are all they share."""

from __future__ import annotations

from wgmp.role import Role, RoleContext
from wgmp.roles.admission import Admission
from wgmp.roles.tun_reader import TunReader
from wgmp.roles.tun_writer import TunWriter
from wgmp.roles.udp_reader import UdpReader
from wgmp.roles.udp_writer import UdpWriter
from wgmp.roles.worker import Worker

_KINDS: dict[str, type[Role]] = {
    "tun_reader": TunReader,
    "udp_reader": UdpReader,
    "admission": Admission,
    "worker": Worker,
    "udp_writer": UdpWriter,
    "tun_writer": TunWriter,
}


def build_role(context: RoleContext) -> Role:
    """Return the role that the context's name says: "worker3" is a worker."""
    return _KINDS[context.name.rstrip("0123456789")](context)
