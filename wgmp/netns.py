"""Network namespaces for the demo, the tests and the benchmark: made, used, taken down again.

```
with Namespaces() as world:
    left, right = world.add("left"), world.add("right")
    link = world.connect(left, right)           # a veth pair, 192.0.2.1 <-> 192.0.2.2
    left.run("ping", "-c1", link.right4)
    server = right.start("iperf3", "-s", log=path)
```

Everything made here is registered the moment it exists and undone in reverse order when the
`with` block ends, whatever ends it; Ctrl-C waits until that is done. Only processes that run
in these namespaces are ended, each by its process id.

Gateways in all namespaces put their sockets into the same directories, so an interface needs a
name of its own across namespaces: `Namespace.interface_name`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from wgmp.errors import CommandError
from wgmp.manage.runner import missing

UAPI_DIRECTORY = Path("/var/run/wireguard")
_CONTROL_DIRECTORY = Path("/run/wgmp")

# linux/if.h: IFNAMSIZ is 16, with the terminating NUL.
_MAX_INTERFACE_NAME = 15
_COMMAND_LIMIT_S = 60.0
_TERM_LIMIT_S = 5.0
_POLL_S = 0.02

_numbers = itertools.count(1)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair: the addresses of both its ends, as text without prefix length."""

    left4: str
    right4: str
    left6: str
    right6: str


class Namespace:
    """One network namespace that exists. Made by `Namespaces.add`, which also removes it."""

    def __init__(self, name: str, undo: contextlib.ExitStack) -> None:
        self.name = name
        self._undo = undo

    def interface_name(self, stem: str) -> str:
        """Return a name for an interface that no other namespace of this machine uses.

        `stem`: a few letters it begins with. The sockets of that name are removed at the end,
        should its gateway have been killed. Raises ValueError when the name gets too long.
        """
        name = f"{stem}{os.getpid()}n{next(_numbers)}"
        if len(name) > _MAX_INTERFACE_NAME:
            raise ValueError(f"{name} is longer than {_MAX_INTERFACE_NAME} characters")
        for directory in (UAPI_DIRECTORY, _CONTROL_DIRECTORY):
            self._undo.callback((directory / f"{name}.sock").unlink, missing_ok=True)
        return name

    def run(
        self,
        *command: str,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = _COMMAND_LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; return what it printed, as text.

        `environment`: added to this process's. Raises CommandError when it takes longer than
        `timeout_s`, or fails and `check` is set.
        """
        return _run([*self._prefix(), *command], stdin, environment, check, timeout_s)

    def start(
        self, *command: str, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command in the background; its output is appended to the file `log`.

        It is in a session of its own, so that Ctrl-C does not reach it. Whoever calls need not
        end it: the namespace's end does.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._prefix(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._undo.callback(end, process)
        return process

    def processes(self) -> list[int]:
        """Return the ids of all processes in this namespace, daemons included."""
        listed = _run(["ip", "netns", "pids", self.name], check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def add_address(self, interface: str, *addresses: str) -> None:
        """Give an interface addresses such as "10.0.0.1/24", usable at once (no IPv6 DAD)."""
        for address in addresses:
            flags = ["nodad"] if ":" in address else []
            _run(["ip", "-n", self.name, "address", "add", address, "dev", interface, *flags])

    def set_up(self, interface: str, *settings: str) -> None:
        """Set an interface up; `settings` as `ip link set` takes them ("mtu", "1420")."""
        _run(["ip", "-n", self.name, "link", "set", interface, *settings, "up"])

    def links(self) -> list[str]:
        """Return the names of the interfaces in this namespace."""
        shown = _run(["ip", "-n", self.name, "-brief", "link"]).stdout
        return [line.split()[0].partition("@")[0] for line in shown.splitlines()]

    def _prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def remove(self) -> None:
        """End the processes that are still in the namespace, then delete it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._signal_all(number):
                break
        _run(["ip", "netns", "del", self.name])

    def _signal_all(self, number: signal.Signals) -> bool:
        """Signal every process here; return whether some are left after a while."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _TERM_LIMIT_S
        while self.processes():
            if time.monotonic() > deadline:
                return True
            time.sleep(_POLL_S)
        return False


class Namespaces:
    """A context that owns namespaces and all that is made in them."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _uninterrupted():
            self._undo.close()

    def add(self, stem: str) -> Namespace:
        """Make a namespace with its loopback up. Raises CommandError, also without privileges."""
        name = f"wgmp-{os.getpid()}-{next(_numbers)}-{stem}"
        namespace = Namespace(name, self._undo)
        with _uninterrupted():
            _run(["ip", "netns", "add", name])
            self._undo.callback(namespace.remove)
        namespace.set_up("lo")
        return namespace

    def connect(self, left: Namespace, right: Namespace, network: int = 2) -> Link:
        """Join two namespaces by a veth pair with IPv4 and IPv6 addresses; both ends are up.

        `network`: 0..255, tells several pairs apart: 192.0.N.1 and .2, 2001:db8:N::1 and ::2
        (192.0.2.0/24 and 2001:db8::/32 are for documentation, RFC 5737 and RFC 3849). The pair
        goes with its namespaces.
        """
        number = next(_numbers)
        names = (f"veth{number}a", f"veth{number}b")
        veth = ["link", "add", names[0], "type", "veth", "peer", "name", names[1]]
        _run(["ip", "-n", left.name, *veth, "netns", right.name])
        ends = zip((left, right), names, (1, 2), strict=True)
        for namespace, name, host in ends:
            namespace.add_address(
                name, f"192.0.{network}.{host}/24", f"2001:db8:{network:x}::{host}/64"
            )
            namespace.set_up(name)
        v4, v6 = f"192.0.{network}.", f"2001:db8:{network:x}::"
        return Link(v4 + "1", v4 + "2", v6 + "1", v6 + "2")


def wait_for(condition: Callable[[], _Value], limit_s: float, what: str) -> _Value:
    """Return the condition's first true value; raise CommandError when none comes in time.

    `what`: what the wait is for, as a clause: "wg0 comes up".
    """
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise CommandError(f"waited {limit_s:g} s in vain: {what}")
        time.sleep(_POLL_S)
    return value


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process: SIGTERM, SIGKILL when it does not heed it. One that has ended is reaped."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERM_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _run(
    command: list[str],
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
    timeout_s: float = _COMMAND_LIMIT_S,
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError:
        raise missing(command[0]) from None
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"'{' '.join(command)}' did not end within {timeout_s:g} s") from error
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandError(f"'{' '.join(command)}' failed ({done.returncode}): {said}")
    return done


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
