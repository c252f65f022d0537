"""Bringing an interface up the way wg-quick does, and down again, also after a crash.

The interface exists and is configured (keys, peers) before; wg-quick(8) is the model:

| step | by | undone |
|---|---|---|
| PreUp hooks (`before`, with `run_hooks`) | bash | PostDown hooks |
| addresses | `ip address add` | `ip address delete` |
| MTU, up | `ip link set` | the MTU and state it had |
| resolver | resolver.py | by the same program |
| routes, longest first | routes.py | `ip route delete` |
| a default route: rules, firewall | routes.py, firewall.py | rules by priority, the table |
| PostUp hooks (with `run_hooks`) | bash | PreDown hooks |

Each step is in the journal before it is taken. What failed on the way is undone at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from wgmp.errors import CommandError, ControlError, WgmpError
from wgmp.manage import mtu, resolver, routes
from wgmp.manage.journal import Journal, Undo
from wgmp.manage.runner import Runner
from wgmp.manage.settings import LinkSettings
from wgmp.uapi_server import is_served

_HOOK_LIMIT_S = 60.0

log = logging.getLogger("wgmp")

SetMark = Callable[[int], Awaitable[None]]
"""Gives the device's datagrams a mark, which a default route needs."""


async def before(interface: str, settings: LinkSettings, run: Runner, journal: Journal) -> None:
    """Do what comes before the interface exists: the PreUp hooks. Raises CommandError.

    Undoes what a killed gateway left in the journal, unless the interface is there, or the gateway
    runs: in another network namespace.
    """
    if journal.steps and not is_served(interface) and not await _exists(interface, run):
        log.warning("%s: undoing what was left behind when it was killed", interface)
        await take_down(interface, run, journal)
    if not settings.run_hooks:
        return
    _journal_hooks(settings.hooks.post_down, interface, journal, after_link=True)
    try:
        await _run_hooks(settings.hooks.pre_up, interface, run)
    except BaseException:
        await take_down(interface, run, journal)
        raise


async def bring_up(
    interface: str,
    settings: LinkSettings,
    run: Runner,
    journal: Journal,
    set_mark: SetMark | None = None,
) -> None:
    """Give the existing interface all that `settings` say, and bring it up.

    `set_mark`: called when a default route needs a mark and the settings have none; by default
    `wg set` does it. What was done is undone, and CommandError raised, when a step fails; the
    PostDown hooks are left to `take_down`, when the interface is gone.
    """

    async def mark_by_wg(mark: int) -> None:
        await run.run("wg", "set", interface, "fwmark", str(mark))

    try:
        await _remember(interface, run, journal)
        await _add_addresses(interface, settings, run, journal)
        await set_up(interface, settings, run)
        await resolver.set_up(interface, settings.dns, run, journal)
        await routes.add(interface, settings, run, journal, set_mark or mark_by_wg)
        if settings.run_hooks:
            _journal_hooks(settings.hooks.pre_down, interface, journal)
            await _run_hooks(settings.hooks.post_up, interface, run)
    except BaseException:
        await take_down(interface, run, journal, link_stays=True)
        raise


async def exists(interface: str, run: Runner) -> bool:
    """Tell whether there is an interface of this name. Raises CommandError without `ip`."""
    return (await run.run("ip", "link", "show", "dev", interface, check=False)).code == 0


async def set_up(interface: str, settings: LinkSettings, run: Runner) -> None:
    """Give the interface its MTU, and set it up. Raises CommandError."""
    size = settings.mtu if settings.mtu is not None else await mtu.choose(settings.endpoints, run)
    await run.run("ip", "link", "set", "mtu", str(size), "up", "dev", interface)


async def undo_leftovers(interface: str, run: Runner, journal: Journal) -> None:
    """Undo what a killed gateway left. Raises ControlError when it lives, or its interface does."""
    if journal.steps and await _exists(interface, run):
        raise ControlError(
            f"{interface} is there: end its gateway first, with `ip link delete {interface}`"
        )
    if journal.steps and is_served(interface):
        raise ControlError(
            f"the gateway on {interface} runs, in another network namespace: end it first"
        )
    await take_down(interface, run, journal)


async def take_down(
    interface: str, run: Runner, journal: Journal, link_stays: bool = False
) -> None:
    """Undo all that the journal holds, newest first; never raises WgmpError.

    What cannot be undone is logged and left. The interface itself stays, if it is there.
    `link_stays`: leave the PostDown hooks to a second call, when the interface is gone.
    """
    there = bool(journal.steps) and await _exists(interface, run)
    newest = True  # it may be written down but never taken
    while journal.steps:
        step = journal.steps[-1]
        if step.after_link and link_stays:
            return
        if there or not step.of_link:
            await _undo(step, run, journal, logging.INFO if newest else logging.WARNING)
        journal.drop_last()
        newest = False


async def _undo(step: Undo, run: Runner, journal: Journal, level: int) -> None:
    if step.shared and journal.of_others(step.shared):
        return
    try:
        await run.run(*step.command, stdin=step.stdin, limit_s=step.limit_s)
    except WgmpError as error:
        log.log(level, "not undone: %s", error)


async def _exists(interface: str, run: Runner) -> bool:
    try:
        return await exists(interface, run)
    except CommandError:
        return False


async def _remember(interface: str, run: Runner, journal: Journal) -> None:
    """Write down the link's MTU and state: undone last, for a link set down loses addresses."""
    now = await mtu.link_of(interface, run)
    back = ("mtu", str(now.mtu), *(() if now.up else ("down",)))
    journal.add(Undo(command=("ip", "link", "set", *back, "dev", interface), of_link=True))


async def _add_addresses(
    interface: str, settings: LinkSettings, run: Runner, journal: Journal
) -> None:
    for address in settings.addresses:
        what = (f"-{address.version}", "address")
        where = (str(address), "dev", interface)
        journal.add(Undo(command=("ip", *what, "delete", *where), of_link=True))
        await run.run("ip", *what, "add", *where)


def _journal_hooks(
    hooks: Iterable[str], interface: str, journal: Journal, after_link: bool = False
) -> None:
    # Backwards, for the journal is undone from its end.
    for hook in reversed(list(hooks)):
        command = _by_bash(hook, interface)
        journal.add(Undo(command=command, after_link=after_link, limit_s=_HOOK_LIMIT_S))


async def _run_hooks(hooks: Iterable[str], interface: str, run: Runner) -> None:
    for hook in hooks:
        done = await run.run(*_by_bash(hook, interface), limit_s=_HOOK_LIMIT_S)
        log.info("hook `%s`: %s", hook, (done.stdout + done.stderr).strip() or "done")


def _by_bash(hook: str, interface: str) -> tuple[str, ...]:
    return ("bash", "-e", "-o", "pipefail", "-c", hook.replace("%i", interface))
