"""wg-quick files as text: written, changed without losing a line, and stripped for `wg`.

`revise` changes a text so that it says what a configuration says. Whatever says so already is
left as it is, letter by letter: comments, blank lines, order, lists on several lines. A new
file is a revision of an empty one (`write`). A section is

    # the office            <- comments: those directly above
    [Peer]                  <- its head
    PublicKey = ...         <- its lines; those of a key that changes are written anew
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from wgmp import keys
from wgmp.addresses import format_prefix
from wgmp.config import InterfaceConfig, PeerConfig, QuickConfig, parse
from wgmp.config_grammar import INTERFACE_KEYS, PEER_KEYS, Key
from wgmp.errors import ConfigError

_WG_KEYS = frozenset({"privatekey", "listenport", "fwmark"})
_WG_QUICK_KEYS = frozenset(INTERFACE_KEYS) - _WG_KEYS
_FRIENDLY_NAME = re.compile(r"\s*#\s*friendly_name\s*=", re.IGNORECASE)


def write(config: QuickConfig) -> str:
    """Return the text of a file that says what `config` says; see `revise`."""
    return revise("", config).lstrip("\n")


def revise(text: str, config: QuickConfig) -> str:
    """Return `text` changed as little as possible so that it says what `config` says.

    Raises ConfigError when `text` is no configuration, and for hooks that no file can hold:
    with line breaks, or with "#", where a comment begins.
    """
    before = parse(text, config.file)
    _refuse_unwritable(config)
    top, sections = _split(text)
    interfaces = [section for section in sections if section.keys is INTERFACE_KEYS]
    if not interfaces and config.interface != InterfaceConfig():
        interfaces = [_Section("[Interface]\n", INTERFACE_KEYS)]
        sections.insert(0, interfaces[0])
    _update(interfaces, before.interface, config.interface)
    old = [section for section in sections if section.keys is PEER_KEYS]
    peers = iter(_revise_peers(list(zip(old, before.peers, strict=True)), config.peers))
    # Interface sections keep their places; a peer takes the place of a peer.
    places = [each if each.keys is INTERFACE_KEYS else next(peers, None) for each in sections]
    ordered = [section for section in (*places, *peers) if section is not None]
    revised = _joined([top, *(section.text for section in ordered)])
    if sections and ordered[-1:] != sections[-1:]:
        revised = revised.rstrip("\n") + "\n"  # blank lines stood between sections
    return revised


def strip(text: str) -> str:
    """Return what `wg setconf` understands of a file: all lines but those for wg-quick.

    Blanks at the ends of lines go, comments stay, as with `wg-quick strip`.
    """
    kept = []
    interface = False
    for line in text.removesuffix("\n").split("\n"):
        name = line.partition("#")[0].partition("=")[0].strip().lower()
        if name.startswith("["):
            interface = name == "[interface]"
        if not interface or name not in _WG_QUICK_KEYS:
            kept.append(line.strip())
    return "\n".join(kept) + "\n"


@dataclass(eq=False)
class _Section:
    """A section's lines, each with its line end."""

    head: str
    keys: Mapping[str, Key]
    above: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join((*self.above, self.head, *self.lines))

    def places(self, key: str = "") -> list[int]:
        """Return the indices of the lines that set this key (lower case), or any."""
        found = [(i, _key_of(line)) for i, line in enumerate(self.lines)]
        return [i for i, name in found if (name == key if key else name)]

    def insert(self, at: int, lines: Iterable[str]) -> None:
        """Put in lines, given without line ends."""
        if at and not self.lines[at - 1].endswith("\n"):
            self.lines[at - 1] += "\n"
        elif not self.head.endswith("\n"):
            self.head += "\n"
        self.lines[at:at] = [f"{line}\n" for line in lines]

    def rename(self, name: str) -> None:
        """Give the peer another name, or none: the comments that named it go."""
        self.above = [line for line in self.above if not line.strip()]
        self.head = "[Peer]\n"
        self.lines = [line for line in self.lines if not _FRIENDLY_NAME.match(line)]
        if name:
            self.insert(0, [f"# friendly_name = {' '.join(name.split())}"])


def _split(text: str) -> tuple[str, list[_Section]]:
    """Return what stands before the first section, and the sections."""
    top = _Section("", {})
    sections: list[_Section] = []
    current = top
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        name = "".join(line.partition("#")[0].split()).lower()
        if not name.startswith("["):
            current.lines.append(line)
            continue
        above: list[str] = []
        while current.lines and current.lines[-1].lstrip().startswith("#"):
            above.insert(0, current.lines.pop())
        current = _Section(line, INTERFACE_KEYS if name == "[interface]" else PEER_KEYS, above)
        sections.append(current)
    return top.text, sections


def _key_of(line: str) -> str:
    name, equals, _ = line.partition("#")[0].partition("=")
    return "".join(name.split()).lower() if equals else ""


def _joined(parts: list[str]) -> str:
    """Return the parts, each on lines of its own; a new one after one blank line."""
    text = ""
    for part in filter(None, parts):
        if text and not text.endswith("\n"):
            text += "\n"
        text += part.removeprefix("\n") if text.endswith("\n\n") else part
    return text


def _update(sections: list[_Section], before: Any, wanted: Any) -> None:
    """Write anew what differs; `sections` are those that said `before` together."""
    for name, key in sections[0].keys.items() if sections else ():
        value = getattr(wanted, key.field)
        if value == getattr(before, key.field):
            continue
        found = [(section, section.places(name)) for section in sections]
        section, places = next((pair for pair in found if pair[1]), (sections[0], []))
        at = places[0] if places else max(section.places(), default=-1) + 1
        for each, old in found:
            for index in reversed(old):
                del each.lines[index]
        section.insert(at, (f"{key.spelling} = {text}" for text in _FORMATS[key.field](value)))


def _revise_peers(
    old: list[tuple[_Section, PeerConfig]], wanted: Iterable[PeerConfig]
) -> list[_Section]:
    """Return the sections of the peers that are wanted, in their order."""
    sections = []
    for peer in wanted:
        found = next((pair for pair in old if pair[1].public_key == peer.public_key), None)
        if found is None:
            section, before = _Section("[Peer]\n", PEER_KEYS, ["\n"]), PeerConfig(public_key=b"")
        else:
            old.remove(found)
            section, before = found
        _update([section], before, peer)
        if peer.name != before.name:
            section.rename(peer.name)
        sections.append(section)
    return sections


def _refuse_unwritable(config: QuickConfig) -> None:
    for hook in itertools.chain(*structs.astuple(config.interface.hooks)):
        if not hook.strip() or hook != hook.strip() or "#" in hook or "\n" in hook:
            raise ConfigError(
                f"the hook {hook!r} cannot stand in a wg-quick file: write it without '#', line "
                "breaks and blanks at its ends, or put it into a script",
                config.file,
            )


def _listed(values: Iterable[object]) -> list[str]:
    text = ", ".join(map(str, values))
    return [text] if text else []


def _unless(absent: object, spell: Callable[[Any], str] = str) -> Callable[[Any], list[str]]:
    return lambda value: [] if value == absent else [spell(value)]


_FORMATS: Mapping[str, Callable[[Any], list[str]]] = {
    "private_key": _unless(b"", keys.to_base64),
    "listen_port": _unless(0),
    "fwmark": _unless(0, hex),
    "addresses": _listed,
    "dns": _listed,
    "mtu": _unless(None),
    "table": _unless("auto"),
    "pre_up": list,
    "post_up": list,
    "pre_down": list,
    "post_down": list,
    "save_config": _unless(False, lambda value: "true"),
    "public_key": _unless(b"", keys.to_base64),
    "preshared_key": _unless(None, keys.to_base64),
    "endpoint": _unless(""),
    "allowed_ips": lambda prefixes: _listed(map(format_prefix, prefixes)),
    "keepalive": _unless(None, lambda seconds: str(seconds or "off")),
}
"""The values of a key's lines, by field, one for each line."""
