"""The command lines: `wgmp` with its subcommands, and `wgmpd`, which behaves as wireguard-go.

Whatever goes wrong is one line on standard error that says what to do, and an exit code that
is not 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from wgmp import __version__, keys, logs, platforms, progress
from wgmp.commands import (
    agent,
    capture,
    completion,
    events,
    log_level,
    peers,
    quick,
    stats,
    status,
    top,
    upgrade,
    workers,
)
from wgmp.errors import EXIT_CODES, WgmpError
from wgmp.options import read_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `wgmp`; return its exit code."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    return _guard("wgmp", lambda: command(parsed))


def main_wgmpd(arguments: Sequence[str] | None = None) -> int:
    """Run `wgmpd [-f|--foreground] IFACE`; return its exit code."""
    parser = make_wgmpd_parser()
    parsed = parser.parse_args(arguments)
    return _guard("wgmpd", lambda: _supervise(parsed))


def make_wgmpd_parser() -> argparse.ArgumentParser:
    """Return the parser of `wgmpd`'s command line."""
    parser = _Parser(
        prog="wgmpd",
        description="Start a WireGuard gateway on a new interface, as wireguard-go does.",
        epilog="WGMP_WORKERS, WGMP_TOPOLOGY, WGMP_TUN_QUEUES, WGMP_CONFIG, WGMP_OFFLOAD, "
        "WGMP_FASTPATH, WGMP_AEAD, WGMP_SESSIONS, WGMP_METRICS, WGMP_SANDBOX, WGMP_USER, "
        "WGMP_LOG_FORMAT, LOG_LEVEL, WG_TUN_FD, WG_UAPI_FD, WG_TUN_NAME_FILE (macOS) and "
        "WG_PROCESS_FOREGROUND are read from the environment.",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="do not detach")
    parser.add_argument("--version", action="version", version=f"wgmp {__version__}")
    parser.add_argument("interface", metavar="IFACE", help="interface to create, such as wg0")
    return parser


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `wgmp`'s command line."""
    parser = _Parser(
        prog="wgmp",
        description="A userspace WireGuard gateway that uses all your cores.",
        epilog="exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES),
    )
    parser.add_argument("--version", action="version", version=f"wgmp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    supervise = commands.add_parser("supervise", help="run a gateway on a new interface")
    supervise.add_argument("interface", metavar="IFACE", help="interface to create, such as wg0")
    supervise.add_argument("--config", metavar="FILE", help="a wg-quick style configuration")
    supervise.add_argument("--workers", metavar="N|auto", help="crypto workers, 1..64")
    supervise.add_argument(
        "--topology",
        metavar="auto|pipeline|compact",
        help="a process per role, or all in one; auto goes by the cores",
    )
    supervise.add_argument(
        "--tun-queues", metavar="N", help="1..16 queues of the interface, with a reader each"
    )
    supervise.add_argument(
        "--offload", metavar="auto|off", help="off: one packet per system call, for comparison"
    )
    supervise.add_argument(
        "--metrics", metavar="ADDR:PORT", help="serve Prometheus, such as on 127.0.0.1:9586"
    )
    supervise.add_argument("--log-format", metavar="text|json", help="json: an object per line")
    supervise.add_argument(
        "--sessions",
        metavar="shared|private",
        help="private: in one worker's memory alone; its death costs handshakes",
    )
    supervise.add_argument("--user", metavar="NAME", help="whose the roles become (wgmp, nobody)")
    supervise.add_argument(
        "--no-sandbox",
        dest="sandbox",
        action="store_const",
        const="off",
        help="for debugging: roles keep the supervisor's rights",
    )
    supervise.add_argument(
        "--fastpath",
        metavar="auto|native|reference",
        help="what works on packets: native (Rust, where it was built) or plain Python",
    )
    supervise.add_argument(
        "--aead",
        metavar="ring|ipsec-mb",
        help="whose ChaCha20-Poly1305 native has: ring's, or ipsec-mb's, faster with AVX-512",
    )
    supervise.add_argument(
        "--run-hooks", action="store_true", help="run PreUp, PostUp, PreDown and PostDown"
    )
    supervise.add_argument("--foreground", action="store_true", help="do not detach")
    supervise.set_defaults(command=_supervise)

    status.add_to(commands)
    stats.add_to(commands)
    top.add_to(commands)
    agent.add_to(commands)
    capture.add_to(commands)
    events.add_to(commands)
    log_level.add_to(commands)
    quick.add_to(commands)
    workers.add_to(commands)
    upgrade.add_to(commands)

    for name, text, run in (
        ("genkey", "print a new private key", _genkey),
        ("genpsk", "print a new preshared key", _genpsk),
        ("pubkey", "read a private key, print its public key", _pubkey),
    ):
        commands.add_parser(name, help=text).set_defaults(command=run)

    doctor = commands.add_parser("doctor", help="what this host can do, and what is missing")
    doctor.add_argument("--offload", action="store_true", help="send super-packets to find out")
    doctor.set_defaults(command=_doctor)

    peers.add_to(commands)
    completion.add_to(commands, parser)

    demo = commands.add_parser("demo", help="two gateways and traffic, in namespaces of their own")
    demo.set_defaults(command=_demo)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line. Its subcommands' parsers are of the same class."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read more, and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` says more)\n")


def _guard(program: str, run: Callable[[], int]) -> int:
    """Run a command; turn what an operator can meet into one line."""
    try:
        code = run()
        print(end="", flush=True)  # while it can be said what goes wrong
        return code
    except WgmpError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_output()
        return 1
    except OSError as error:
        _forget_output()
        print(f"{program}: {error.strerror or error}{_place(error)}", file=sys.stderr)
        return 1


def _forget_output() -> None:
    """Let what was printed and cannot be written be no mistake once more when Python ends."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _place(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _supervise(parsed: argparse.Namespace) -> int:
    platforms.require_gateway()
    from wgmp import gateway  # uvloop and the roles are for gateways only

    given = {name: value for name, value in vars(parsed).items() if name != "command"}
    options = read_options(given.pop("interface"), os.environ, **given)
    logs.set_up(options.log_level, options.log_format, os.environ)
    return gateway.start(options)


def _genkey(parsed: argparse.Namespace) -> int:
    print(keys.to_base64(keys.generate_private_key()))
    return 0


def _genpsk(parsed: argparse.Namespace) -> int:
    print(keys.to_base64(keys.generate_preshared_key()))
    return 0


def _pubkey(parsed: argparse.Namespace) -> int:
    private_key = keys.private_key_from_input(sys.stdin.buffer.read())
    print(keys.to_base64(keys.public_key_of(private_key)))
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    platforms.require_linux("doctor")
    from wgmp import doctor  # only it needs the namespaces

    checks: list[doctor.Check] = []
    results = doctor.examine(parsed.offload)
    while True:
        with progress.under_way("looking at this host"):
            check = next(results, None)
        if check is None:
            break
        print(check, flush=True)
        checks.append(check)
    return 0 if doctor.can_run(checks) else 1


def _demo(parsed: argparse.Namespace) -> int:
    platforms.require_linux("the demo")
    from wgmp import demo  # rich takes a while to import

    return demo.run()
