"""`wgmp demo`: two gateways in two namespaces, traffic between them, and the proof of it.

```
namespace left                                    namespace right
10.77.0.1 on wgL = gateway = 192.0.2.1 --veth-- 192.0.2.2 = gateway = wgR on 10.77.0.2
```

Everything is real but the distance: the gateways are `wgmp supervise`, set up by `wg` and
`ip`, with a process per role. Each step prints one line; all is taken down at the end, after a
failure and after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from wgmp import keys
from wgmp.errors import CommandError, PrivilegeError, TunDeviceError, WgmpError
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for
from wgmp.traffic import Report, Transfer

_PORT = 51820
_TCP_PORT = 5201
_MTU = 1420
_PINGS = 5
_START_LIMIT_S = 30.0
_DRAIN_LIMIT_S = 60.0
_LOG_LINES = 15


@dataclass(frozen=True)
class _End:
    """One gateway and what the other needs to know of it."""

    name: str
    namespace: Namespace
    interface: str
    private_key: bytes
    inner: str
    outer: str
    log: Path

    @property
    def public_key(self) -> str:
        return keys.to_base64(keys.public_key_of(self.private_key))


def run(seconds: float = 5.0) -> int:
    """Play the demo, with `seconds` of traffic; return the exit code.

    Raises PrivilegeError and TunDeviceError where it cannot run at all. What fails later is
    printed with the ends of the gateways' logs; then the exit code is 1, and after Ctrl-C 130.
    """
    if os.geteuid() != 0:
        raise PrivilegeError("the demo makes network namespaces and TUN devices: run it as root")
    if not Path("/dev/net/tun").exists():
        raise TunDeviceError("there is no /dev/net/tun: load the kernel's module with modprobe tun")
    console = Console(highlight=False, soft_wrap=True)
    code = 0
    with _sigterm_as_interrupt(), tempfile.TemporaryDirectory(prefix="wgmp-demo-") as directory:
        try:
            with Namespaces() as world:
                _play(world, Path(directory), console, seconds)
        except WgmpError as error:
            console.print(f"[red]failed:[/] {error}", markup=True)
            _print_logs(Path(directory), console)
            code = 1
        except KeyboardInterrupt:
            console.print("interrupted")
            code = 130
    _step(console, "namespaces, gateways and interfaces are gone again")
    return code


def _play(world: Namespaces, directory: Path, console: Console, seconds: float) -> None:
    left, right = _lay_out(world, directory)
    _step(console, f"two namespaces joined by a veth pair: {left.outer} <-> {right.outer}")
    _start(left, right)
    _step(console, "two gateways started, with a process per role")
    _configure(left, right)
    _configure(right, left)
    _step(console, f"keys generated, peers set by wg, interfaces up: {left.inner}, {right.inner}")
    _step(console, f"ping through the tunnel: {_ping(left, right)}")
    report = _transfer(left, right, directory, console, seconds)
    rate = 8 * report.bytes / report.seconds / 1e9
    _step(console, f"{report.bytes / 1e6:.0f} MB of random bytes over TCP, {rate:.2f} Gbit/s")
    _step(console, f"what arrived is what was sent: SHA-256 {report.sha256}")
    for end in (left, right):
        _step(console, f"the {end.name} gateway's statistics:")
        command = (sys.executable, "-m", "wgmp", "stats", end.interface)
        console.out(end.namespace.run(*command).stdout)


def _step(console: Console, line: str) -> None:
    console.print(f"[green]*[/] {line}", markup=True)


def _lay_out(world: Namespaces, directory: Path) -> tuple[_End, _End]:
    spaces = world.add("left"), world.add("right")
    link = world.connect(*spaces)

    def end(name: str, namespace: Namespace, inner: str, outer: str) -> _End:
        interface = namespace.interface_name("wg")
        log = directory / f"{name}.log"
        return _End(name, namespace, interface, keys.generate_private_key(), inner, outer, log)

    return (
        end("left", spaces[0], "10.77.0.1", link.left4),
        end("right", spaces[1], "10.77.0.2", link.right4),
    )


def _start(*ends: _End) -> None:
    options = ("--topology", "pipeline", "--foreground")
    for end in ends:
        command = (sys.executable, "-m", "wgmp", "supervise", end.interface, *options)
        process = end.namespace.start(*command, log=end.log)
        wait_for(partial(_serves, end, process), _START_LIMIT_S, f"the {end.name} gateway starts")


def _serves(end: _End, process: subprocess.Popen[bytes]) -> bool:
    """Tell whether `wg` can reach the gateway. Raises CommandError when it has ended."""
    if process.poll() is not None:
        raise CommandError(f"the {end.name} gateway ended with exit code {process.returncode}")
    return (UAPI_DIRECTORY / f"{end.interface}.sock").exists()


def _configure(end: _End, peer: _End) -> None:
    lines = (
        "[Interface]",
        f"PrivateKey = {keys.to_base64(end.private_key)}",
        f"ListenPort = {_PORT}",
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"AllowedIPs = {peer.inner}/32",
        f"Endpoint = {peer.outer}:{_PORT}",
    )
    end.namespace.run("wg", "setconf", end.interface, "/dev/stdin", stdin="\n".join(lines) + "\n")
    end.namespace.add_address(end.interface, f"{end.inner}/24")
    end.namespace.set_up(end.interface, "mtu", str(_MTU))


def _ping(end: _End, peer: _End) -> str:
    """Return ping's own summary: how many came back, and how fast."""
    options = ("-n", "-q", f"-c{_PINGS}", "-i0.2", "-W5")
    printed = end.namespace.run("ping", *options, peer.inner).stdout
    received = re.search(r"\d+ packets transmitted, \d+ received", printed)
    times = re.search(r"= [\d.]+/([\d.]+)/", printed)
    if received is None or times is None:
        raise CommandError(f"ping printed what it never did before: {printed.strip()}")
    return f"{received[0]}, {times[1]} ms on average"


def _transfer(end: _End, peer: _End, directory: Path, console: Console, seconds: float) -> Report:
    """Send random bytes for some seconds, with a progress bar; return what arrived."""
    columns = (
        TextColumn("  TCP"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    limits = ("--seconds", str(seconds))
    transfer = Transfer(end.namespace, peer.namespace, peer.inner, _TCP_PORT, directory, *limits)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def look() -> bool:
            arrived = transfer.received()
            share = min(1.0, max(0.01, arrived.seconds / seconds))
            progress.update(task, completed=arrived.bytes, total=arrived.bytes / share)
            return not transfer.running()

        wait_for(look, seconds + _DRAIN_LIMIT_S, "the transfer ends")
    return transfer.finish(limit_s=1.0)


def _print_logs(directory: Path, console: Console) -> None:
    for log in sorted(directory.glob("*.log")):
        lines = log.read_text().splitlines()[-_LOG_LINES:]
        console.print(f"the end of the log {log.name}:", *(lines or ["(empty)"]), sep="\n  ")


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM take everything down as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
