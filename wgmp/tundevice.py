"""The TUN device of this system, and the watch over it.

| | Linux | macOS |
|---|---|---|
| `queue_of` | tun.py: virtio headers, super-packets | utun.py: one packet behind its family |
| `with_interface` | opened when its time comes | opened at once, for the system names it |
| `LinkWatch` | linkwatch.py: the kernel tells | linkpoll.py: a look now and then |
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping

from wgmp.options import Options

if sys.platform == "linux":
    from wgmp.linkwatch import LinkWatch
    from wgmp.tun import TunQueue, has_virtio_header, name_of

    def queue_of(descriptor: int, name: str, asking: socket.socket) -> TunQueue:
        """Return a queue of the interface `name`; `asking`: any socket."""
        return TunQueue(descriptor, has_virtio_header(descriptor), asking)

    def with_interface(options: Options, environment: Mapping[str, str]) -> Options:
        """Return the options as they are: the interface is opened by the name they have."""
        return options

else:
    from wgmp.linkpoll import LinkPoll as LinkWatch
    from wgmp.utun import name_of, queue_of, with_interface

__all__ = ["LinkWatch", "name_of", "queue_of", "with_interface"]
