"""The one run loop: a process is a list of roles that share it.

First it takes the whole configuration, up to the order to begin. Then, each turn: wait for
descriptors (not at all while there is work), take the supervisor's orders, let every role step.
When no role had work the process declares itself asleep, looks at its rings once more, and
waits for a descriptor, the doorbell, or the next deadline. Waiting is the fast path's, which may
make whole turns by itself while there is nothing to decide (`fastpath.interface.Turns`).

The supervisor's end of the control socket closing is the order to stop.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import select
import signal
import socket
import traceback
from collections.abc import Callable
from functools import partial

from wgmp import logs, system
from wgmp.counters import Counter
from wgmp.errors import with_place
from wgmp.events import AnyEvent, Outbox
from wgmp.fastpath.interface import FastPath
from wgmp.interest import Interest, is_broken
from wgmp.orders import (
    Begin,
    Drain,
    Drained,
    Failed,
    Happened,
    Moved,
    Ready,
    Report,
    SetLogLevel,
    SetSockets,
    decode_orders,
    encode_report,
)
from wgmp.ring import Doorbell
from wgmp.role import Role
from wgmp.system import boottime
from wgmp.system.line import Line

log = logging.getLogger("wgmp")

# The longest sleep: how soon a heartbeat shows in the counters of an idle gateway.
_LONGEST_SLEEP_S = 1.0
_HEARTBEAT_S = 0.1
# Messages of orders taken at one go by a role that lacks a peer.
_MOST_CAUGHT_UP = 8
# A supervisor that reads nothing for so long is taken for one that is gone.
_REPORT_WAIT_S, _TRIES_TO_REPORT = 0.1, 50
# A successor is shown again what its predecessor died of, if it was a record. Killed from
# outside, they rarely die young twice.
_SUSPICIOUS_DEATHS = 2


def run(
    build: Callable[[], list[Role]],
    doorbell: Doorbell,
    control: Line,
    sockets: list[socket.socket],
    trace: int,
    fastpath: FastPath,
) -> int:
    """Build the roles, report, and run them until told to stop; return the exit code.

    `sockets`: the UDP sockets inherited, closed when others take their place. `trace`: a
    descriptor to write the stack to when a signal ends the process. What else goes wrong is
    reported to the supervisor before that.
    """
    signal.set_wakeup_fd(-1)  # the supervisor's event loop had one
    # Ctrl-C reaches the whole terminal; the supervisor alone decides when roles stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable(trace)
    try:
        loop = Loop(build(), doorbell, control, sockets, fastpath)
        _report(control, Ready())
        # What exists now lives as long as the process; the collector need not look at it again.
        gc.freeze()
        loop.run()
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        _report(control, Failed(with_place(error)))
        return 1
    return 0


def _report(control: Line, report: Report) -> None:
    """Send a report; wait for room where events have filled the line."""
    message = encode_report(report)
    for _ in range(_TRIES_TO_REPORT):
        try:
            control.send(message, [])
            return
        except BlockingIOError:
            with system.Poller() as room:
                room.register(control.fileno(), select.POLLOUT)
                room.poll(_REPORT_WAIT_S)
        except OSError:
            break
    log.debug("the supervisor is gone, nobody hears: %s", report)


class Loop:
    """The run loop of one process."""

    def __init__(
        self,
        roles: list[Role],
        doorbell: Doorbell,
        control: Line,
        sockets: list[socket.socket],
        fastpath: FastPath,
    ) -> None:
        self._roles = roles
        # Asked in every turn are only those that may have something to say.
        self._timed = [role for role in roles if type(role).deadline is not Role.deadline]
        self._writers = [role for role in roles if type(role).blocked_on is not Role.blocked_on]
        self._sleeps = 0
        self._doorbell = doorbell
        self._control = control
        self._sockets = sockets
        self._interest = Interest()
        parts = [(role.part, role.inputs) for role in roles]
        taps = [role.tap.word for role in roles if role.tap is not None]
        captured = taps[0] if taps else None  # the same word for all
        self._turns = fastpath.turns(self._interest, doorbell, parts, captured)
        self._readers: dict[int, Role] = {}
        self._next_beat = 0.0
        self._begun = False
        self._draining = False
        self._drained = False
        self._stopping = False
        self._outbox = Outbox(self._send_event)
        for role in roles:
            role.counters.add(Counter.STARTS)
            role.catch_up = self._catch_up
            role.emit = partial(self._outbox.emit, role.name)
        self._watch()

    def run(self) -> None:
        """Take the configuration, then turn until the supervisor says stop."""
        self._wait_to_begin()
        busy = False
        while not self._stopping:
            blocked = self._interest.blocked_on is not None
            events = self._turns.wait(busy, self._deadline(busy), blocked)
            now = boottime()
            for role in self._roles:
                role.settle(now)
            broken = False
            for descriptor, mask in events:
                self._dispatch(descriptor, now)
                broken |= is_broken(mask)
            busy = False
            draining = self._draining
            for role in self._roles:
                if draining:
                    role.readable = False
                if role.step(now):
                    busy = True
            if now >= self._next_beat:
                self._beat(now)
            if draining and not self._drained:
                self._drained = True
                _report(self._control, Drained())
            if broken:
                self._watch()  # a role that has given its descriptor up is not woken by it again
            self._interest.write(self._blocked())
        for role in self._roles:
            role.teardown()

    def _wait_to_begin(self) -> None:
        """Take orders, and do nothing else, until the one to begin has come."""
        with system.Poller() as waiting:
            waiting.register(self._control.fileno(), select.POLLIN)
            while not (self._begun or self._stopping):
                waiting.poll(_LONGEST_SLEEP_S)
                now = boottime()
                self._beat(now)
                self._take_orders(now)

    def _begin(self, deaths: int) -> None:
        self._begun = True
        if deaths >= _SUSPICIOUS_DEATHS:
            log.warning("%d predecessors died young: skipping what they had in hand", deaths)
            for role in self._roles:
                role.skip_records()

    def _beat(self, now: float) -> None:
        """Let every role's heartbeat show, and how often it has slept since the last one."""
        self._next_beat = now + _HEARTBEAT_S
        slept, self._sleeps = self._turns.sleeps - self._sleeps, self._turns.sleeps
        for role in self._roles:
            role.counters.store(Counter.HEARTBEAT, int(now * 1e9))
            role.counters.add(Counter.SLEEPS, slept)

    def _deadline(self, busy: bool) -> float:
        """Return when the roles must step at the latest, whether anything comes or not."""
        if not busy:
            self._outbox.tick()
        earliest = boottime() + _LONGEST_SLEEP_S
        for role in self._timed:
            deadline = role.deadline()
            if deadline is not None and deadline < earliest:
                earliest = deadline
        return earliest

    def _dispatch(self, descriptor: int, now: float) -> None:
        role = self._readers.get(descriptor)
        if role is not None:
            role.readable = True
        elif descriptor == self._control.fileno():
            self._take_orders(now)

    def _send_event(self, event: AnyEvent) -> bool:
        try:
            self._control.send(encode_report(Happened(event)), [])
        except OSError:
            return False  # no room, or the supervisor is gone
        return True

    def _catch_up(self) -> None:
        """Take the orders that have been sent by now, in the middle of a role's step.

        A change by `wg` is one message, but one of thousands of peers: the rest can wait.
        """
        for _ in range(_MOST_CAUGHT_UP):
            if not self._take_orders(boottime()):
                return

    def _take_orders(self, now: float) -> bool:
        """Let every role obey one message of orders; return whether there was one.

        The end of the stream is the stop. There may be hundreds of messages, with thousands of
        peers. The roles work in between: as long as there are more, the poller says so.
        """
        try:
            message, descriptors = self._control.receive()
        except BlockingIOError:
            return False
        if not message:
            self._stopping = True
            return False
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        orders = decode_orders(message)
        for order in orders:
            if isinstance(order, SetLogLevel):
                logs.set_level(order.level)
                continue
            if isinstance(order, Drain):
                self._draining = True
                continue
            for role in self._roles:
                role.obey(order, now, sockets)
            if isinstance(order, Begin):
                self._begin(order.deaths)
        if any(isinstance(order, SetSockets | Drain) for order in orders):
            self._watch()
        if any(isinstance(order, SetSockets) for order in orders):
            for old in self._sockets:
                old.close()
            self._sockets = sockets
            _report(self._control, Moved())
        return True

    def _blocked(self) -> int | None:
        for role in self._writers:
            descriptor = role.blocked_on()
            if descriptor is not None:
                return descriptor
        return None

    def _watch(self) -> None:
        """Wait for what the roles read, the doorbell and the control socket."""
        reading = [] if self._draining else self._roles
        self._readers = {fd: role for role in reading for fd in role.descriptors()}
        self._interest.read([*self._readers, self._doorbell.descriptor, self._control.fileno()])
