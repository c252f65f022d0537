"""Round trips, by the system's `ping`: one echo, one second to answer.

| system | command |
|---|---|
| Linux | `ping -c 1 -W 1` |
| macOS | `ping -c 1 -W 1000` (milliseconds); for IPv6 `ping6 -c 1`, which has no such option |
| Windows | `ping -n 1 -w 1000` |
"""

from __future__ import annotations

import ipaddress
import re
import sys

from wgmp.errors import CommandError, ConfigError
from wgmp.manage.runner import Runner, missing

_LIMIT_S = 3.0
# "time=0.045 ms", "time<1ms", "Zeit=12ms": the word is translated, sign and unit are not.
_TIME = re.compile(r"[=<] ?(\d+(?:[.,]\d+)?) ?ms\b")


def command(address: str, system: str = sys.platform) -> tuple[str, ...]:
    """Return the command that pings once. `system`: as `sys.platform`.

    Raises ConfigError for what is no address.
    """
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        raise ConfigError(f"{address!r} is no address: write for example 10.66.0.2") from None
    if system == "win32":
        return ("ping", "-n", "1", "-w", "1000", address)
    if system == "darwin":
        return (
            ("ping6", "-c", "1", address)
            if version == 6
            else ("ping", "-c", "1", "-W", "1000", address)
        )
    return ("ping", "-c", "1", "-W", "1", address)


def parse(printed: str) -> float | None:
    """Return the milliseconds in what ping printed (of "<1ms" the 1), None without an answer."""
    found = _TIME.search(printed)
    return float(found[1].replace(",", ".")) if found else None


async def measure(address: str, run: Runner, system: str = sys.platform) -> float | None:
    """Ping an address once; return the milliseconds until it answered, None when it did not.

    Raises CommandError when there is no `ping`, and ConfigError for what is no address.
    """
    words = command(address, system)
    if not run.has(words[0]):
        raise missing(words[0])
    try:
        done = await run.run(*words, check=False, limit_s=_LIMIT_S)
    except CommandError:
        return None
    return parse(done.stdout) if done.code == 0 else None
