"""Reading a settings file: TOML, or JSON when its name ends in .json.

Whatever is wrong with a file is a ConfigError with file and line, and with what to write instead.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from wgmp.agent import places
from wgmp.agent.settings import AgentSettings, NetworkSettings, PeerSettings, Settings
from wgmp.agent.values import HostPort, decode_value
from wgmp.errors import ConfigError
from wgmp.files import EMPTY, read_text
from wgmp.options import check_interface_name

_NETWORK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def load(path: Path) -> Settings:
    """Read and check a file, or a pipe; raises ConfigError, also when it cannot be read."""
    return parse(read_text(path, piped=True), str(path))


def load_again(path: Path) -> Settings:
    """Return what a running agent's file says now, as `load` does, and never wait.

    Raises ConfigError for one that says nothing: most likely it is just being written.
    """
    settings = parse(read_text(path), str(path))
    if settings == Settings():
        raise ConfigError(EMPTY, str(path))
    return settings


def parse(text: str, file: str) -> Settings:
    """Check the text of a file; `file` names it in a ConfigError and says if it is JSON."""
    is_json = file.endswith(".json")
    try:
        tables = _parse_json(text, file) if is_json else _parse_toml(text, file)
        return _settings(tables)
    except Misplaced as error:
        line = places.line_of(text, error.path, is_json)
        raise ConfigError(str(error), file, line) from None


def peer_from(table: Any) -> PeerSettings:
    """Check one peer that came as a JSON object; raises Misplaced."""
    return _peer(table, [])


def network_from(name: str, table: dict[str, Any]) -> NetworkSettings:
    """Check one network that was put together elsewhere; raises Misplaced."""
    return _network(name, table)


class Misplaced(ValueError):
    """A mistake in a table. `path`: the way to it; the message begins with it."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        where = places.spell(path)
        super().__init__(f"{where}: {message}" if where else message)
        self.path = path


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # "... (at line 3, column 1)", or "(at end of document)".
        message, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"is not TOML: {message[:1].lower()}{message[1:]}", file, line) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"is not TOML: {_beyond(error)}", file) from None


def _parse_json(text: str, file: str) -> dict[str, Any]:
    try:
        tables = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise ConfigError(f"is not JSON: {message}", file, error.lineno) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"is not JSON: {_beyond(error)}", file) from None
    if not isinstance(tables, dict):
        raise ConfigError('write an object: {"network": {...}}', file, 1)
    return tables


def _beyond(error: Exception) -> str:
    """Return what is beyond the parsers, which then raise Python's own errors."""
    deep = isinstance(error, RecursionError)
    return "it is nested too deep" if deep else "a number in it is too long"


def _settings(tables: dict[str, Any]) -> Settings:
    _refuse_unknown(tables, ("agent", "network"), [])
    agent = _convert(tables.get("agent", {}), AgentSettings, ["agent"])
    named = _table(tables.get("network", {}), ["network"])
    networks = {name: _network(name, table) for name, table in named.items()}
    _refuse_twice(
        (network.interface, ["network", name, "interface"]) for name, network in networks.items()
    )
    _refuse_twice(
        (network.metrics, ["network", name, "metrics"])
        for name, network in networks.items()
        if network.metrics is not None
    )
    return Settings(agent=agent, networks=networks)


def _network(name: str, table: Any) -> NetworkSettings:
    path: list[str | int] = ["network", name]
    if _NETWORK_NAME.fullmatch(name) is None:
        raise Misplaced(path, "is no network's name: write letters, digits, '_', '-' and '.'")
    table = _table(table, path)
    peers = table.get("peers", [])
    if not isinstance(peers, list):
        raise Misplaced([*path, "peers"], f"write each peer as [[network.{name}.peers]]")
    built = tuple(_peer(peer, [*path, "peers", i]) for i, peer in enumerate(peers))
    network = _convert({**table, "peers": []}, NetworkSettings, path)
    interface = network.interface or name
    try:
        check_interface_name(interface)
    except ConfigError as error:
        raise Misplaced([*path, "interface"], str(error)) from None
    _refuse_twice((p.public_key, [*path, "peers", i, "public_key"]) for i, p in enumerate(built))
    _refuse_twice((p.name, [*path, "peers", i, "name"]) for i, p in enumerate(built) if p.name)
    return msgspec.structs.replace(network, interface=interface, peers=built)


def _peer(table: Any, path: list[str | int]) -> PeerSettings:
    table = _table(table, path)
    if "endpoint" in table:
        if "endpoints" in table:
            raise Misplaced([*path, "endpoint"], "write endpoint or endpoints, not both")
        table = {**table}
        table["endpoints"] = [_endpoint(table.pop("endpoint"), [*path, "endpoint"])]
    return _convert(table, PeerSettings, path, also=("endpoint",))


def _endpoint(value: Any, path: list[str | int]) -> Any:
    try:
        return str(decode_value(HostPort, value))
    except ValueError as error:
        raise Misplaced(path, str(error)) from None


def _table(value: Any, path: list[str | int]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Misplaced(path, f"write a table: [{places.spell(path)}]")
    return value


def _convert(
    table: Any, kind: type[_Struct], path: list[str | int], also: tuple[str, ...] = ()
) -> _Struct:
    """Return the struct of a table. `also`: fields that the file may have besides."""
    table = _table(table, path)
    _refuse_unknown(table, (*kind.__struct_fields__, *also), path)
    try:
        return msgspec.convert(table, kind, dec_hook=decode_value)
    except msgspec.ValidationError as error:
        message, _, place = str(error).replace(" | null`", "`").partition(" - at `$")
        steps = re.findall(r"\.(\w+)|\[(\d+)\]", place.rstrip("`"))
        found = [name or int(index) for name, index in steps]
        raise Misplaced([*path, *found], f"{message[:1].lower()}{message[1:]}") from None


def _refuse_unknown(table: dict[str, Any], known: Sequence[str], path: Sequence[str | int]) -> None:
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"
            raise Misplaced([*path, name], f"is not known: {remedy}")


def _refuse_twice(values: Iterator[tuple[str, list[str | int]]]) -> None:
    seen: dict[str, list[str | int]] = {}
    for value, path in values:
        if value in seen:
            raise Misplaced(path, f"{value} is taken by {places.spell(seen[value])}")
        seen[value] = path
