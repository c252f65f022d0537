"""The lines of wg-quick style configuration files.

The grammar is that of `wg setconf` (wireguard-tools src/config.c) with the keys that wg-quick
adds (src/wg-quick/linux.bash): sections in brackets, `key = value`, keys in any case, "#" to
the end of the line is a comment, lists by commas or by repeating the key, and of a repeated
single value the last one counts. Without a value a key of wg-quick's is as good as not there, and
one of `wg`'s is refused, as they do it. A peer's name is what comments have for it.

Every mistake is a ConfigError with file and line, and with what to write instead; no message
holds a key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wgmp.addresses import PORT_MAX, parse_prefix, split_host_port
from wgmp.errors import ConfigError
from wgmp.keys import KeyFormatError, from_base64
from wgmp.protocol.allowedips import Prefix

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
DnsEntry = ipaddress.IPv4Address | ipaddress.IPv6Address | str

KEEPALIVE_MAX = 65535  # seconds; linux/wireguard.h has 16 bits for it
FWMARK_MAX = 0xFFFF_FFFF  # 32 bits, SO_MARK (socket(7))
MTU_MIN, MTU_MAX = 68, 65535  # RFC 791's least; the most a TUN device takes

TABLE = re.compile(r"[A-Za-z0-9_.-]+")
"""A routing table's number or name, "off" or "auto"."""

Fields = dict[str, Any]
"""The values of one section by field name of its struct in config.py."""


def read_sections(text: str, file: str) -> tuple[Fields, list[Fields]]:
    """Return the interface's fields and each peer's, in order.

    `file` names the text in a ConfigError, which is all that is raised.
    """
    interface: Fields = {}
    peers: list[Fields] = []
    section: Fields | None = None
    above: list[str] = []  # the comments directly above this line
    for number, line in enumerate(text.split("\n"), 1):
        content, hash_sign, comment = line.partition("#")
        content = content.strip()
        if hash_sign and not content:
            above.append(comment)
            continue
        try:
            if content.startswith("["):
                section = _open_section(content, interface, peers, number)
                if section is not interface and (name := _name(above, comment)):
                    section["name"] = name
            else:
                _name_inside(section, interface, above)
                if content and section is None:
                    raise ValueError(
                        "nothing may stand before the first section: write [Interface]"
                    )
                if content and section is not None:
                    _take(section, INTERFACE_KEYS if section is interface else PEER_KEYS, content)
        except ValueError as error:
            raise ConfigError(str(error), file, number) from None
        above = []
    _name_inside(section, interface, above)
    for peer in peers:
        if "public_key" not in peer:
            raise ConfigError("this peer has no key: add PublicKey = ...", file, peer["line"])
    return interface, peers


def _open_section(content: str, interface: Fields, peers: list[Fields], number: int) -> Fields:
    name = "".join(content.split()).lower()
    if name == "[interface]":
        return interface
    if name == "[peer]":
        peers.append({"line": number})
        return peers[-1]
    raise ValueError(f"{content} is no section: write [Interface] or [Peer]")


# wireguard exporters and dashboards call it so.
_FRIENDLY_NAME = re.compile(r"\s*friendly_name\s*=\s*(\S.*?)\s*", re.IGNORECASE)
_SETTING = re.compile(r"\w+\s*=")


def _name(above: list[str], beside: str) -> str:
    """Return a peer's name from the comments above its section, and beside the section's line.

    `friendly_name = ...` if there is one, else the first that is no setting put out of use.
    """
    if name := _friendly_name(above):
        return name
    plain = (comment.strip("# \t\r") for comment in (*above, beside))
    return next((name for name in plain if name and not _SETTING.match(name)), "")


def _name_inside(section: Fields | None, interface: Fields, comments: list[str]) -> None:
    if section is not None and section is not interface and (name := _friendly_name(comments)):
        section["name"] = name


def _friendly_name(comments: list[str]) -> str:
    found = (_FRIENDLY_NAME.fullmatch(comment) for comment in comments)
    return next((match[1] for match in found if match), "")


_REFUSED = object()


class Key(NamedTuple):
    """How a key is spelt, the field it fills, and the reader of its value.

    A reader takes a stripped, non-empty text, and raises ValueError with what to write instead.
    `empty`: what no text stands for. A tuple is added to what is there.
    """

    spelling: str
    field: str
    read: Callable[[str], Any]
    empty: Any = _REFUSED


def _take(section: Fields, keys: Mapping[str, Key], content: str) -> None:
    text, equals, value = content.partition("=")
    name = "".join(text.split())
    if not equals:
        raise ValueError("this line is not understood: write key = value")
    key = keys.get(name.lower())
    if key is None:
        known = ", ".join(key.spelling for key in keys.values())
        raise ValueError(f"{name} is not known in this section: write one of {known}")
    value = value.strip()
    if not value and key.empty is _REFUSED:
        raise ValueError(f"{key.spelling} has no value: write one, or leave the line out")
    try:
        found = key.read(value) if value else key.empty
    except ValueError as error:
        raise ValueError(f"{key.spelling}: {error}") from None
    section[key.field] = section.get(key.field, ()) + found if isinstance(found, tuple) else found


# Readers


def _key(text: str) -> bytes:
    try:
        return from_base64("".join(text.split()))
    except KeyFormatError:
        raise ValueError("this is no key: write the 44 characters `wg genkey` prints") from None


def _number(smallest: int, largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,10}", text) and smallest <= int(text) <= largest:
            return int(text)
        raise ValueError(f"{text} is not possible: write a number of {smallest} to {largest}")

    return read


def _keepalive(text: str) -> int:
    if text.lower() == "off":
        return 0
    if re.fullmatch(r"[0-9]{1,10}", text) and int(text) <= KEEPALIVE_MAX:
        return int(text)
    raise ValueError(f"{text} is not possible: write off, or 1 to {KEEPALIVE_MAX} seconds")


def _fwmark(text: str) -> int:
    if text.lower() == "off":
        return 0
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    if re.fullmatch(r"[0-9]{1,10}", text) and int(text) <= FWMARK_MAX:
        return int(text)
    raise ValueError(f"{text} is not possible: write off, or 1 to 0xffffffff")


def _endpoint(text: str) -> str:
    text = "".join(text.split())
    try:
        split_host_port(text)
    except ValueError as error:
        raise ValueError(f"{text} {error}: write for example vpn.example.org:51820") from None
    return text


def _allowed_ips(text: str) -> tuple[Prefix, ...]:
    items = "".join(text.split()).split(",")
    try:
        return tuple(parse_prefix(item) for item in items)
    except ValueError as error:
        raise ValueError(f"{text} {error}: write for example 10.0.0.0/8, fd00::/64") from None


def _addresses(text: str) -> tuple[Address, ...]:
    try:
        return tuple(ipaddress.ip_interface(item) for item in _items(text))
    except ValueError:
        raise ValueError(f"{text} is not possible: write for example 10.0.0.1/24") from None


def _dns(text: str) -> tuple[DnsEntry, ...]:
    return tuple(_dns_entry(item) for item in _items(text))


def parse_dns(text: str) -> DnsEntry:
    """Return a server's address, or what wg-quick takes for a search domain, as it is.

    Raises ValueError for what looks like an address and is none.
    """
    looks_like_address = re.fullmatch(r"[0-9.]+|.*:.*", text)
    return ipaddress.ip_address(text) if looks_like_address else text


def _dns_entry(text: str) -> DnsEntry:
    try:
        return parse_dns(text)
    except ValueError:
        raise ValueError(f"{text} is no address: write for example 9.9.9.9") from None


def _table(text: str) -> str:
    if TABLE.fullmatch(text) is None:
        raise ValueError(f"{text} is no routing table: write off, auto, a number or a name")
    return text


def _hook(text: str) -> tuple[str, ...]:
    return (text,)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text} is not possible: write true or false")
    return text.lower() == "true"


def _items(text: str) -> list[str]:
    # wg-quick separates by commas and blanks alike.
    return text.replace(",", " ").split()


def _by_name(*keys: Key) -> dict[str, Key]:
    return {key.spelling.lower(): key for key in keys}


INTERFACE_KEYS = _by_name(
    Key("PrivateKey", "private_key", _key),
    Key("ListenPort", "listen_port", _number(0, PORT_MAX)),
    Key("FwMark", "fwmark", _fwmark),
    Key("Address", "addresses", _addresses, empty=()),
    Key("DNS", "dns", _dns, empty=()),
    Key("MTU", "mtu", _number(MTU_MIN, MTU_MAX), empty=None),
    Key("Table", "table", _table, empty="auto"),
    Key("PreUp", "pre_up", _hook, empty=()),
    Key("PostUp", "post_up", _hook, empty=()),
    Key("PreDown", "pre_down", _hook, empty=()),
    Key("PostDown", "post_down", _hook, empty=()),
    Key("SaveConfig", "save_config", _boolean),
)

PEER_KEYS = _by_name(
    Key("PublicKey", "public_key", _key),
    Key("PresharedKey", "preshared_key", _key),
    Key("Endpoint", "endpoint", _endpoint),
    Key("AllowedIPs", "allowed_ips", _allowed_ips),
    Key("PersistentKeepalive", "keepalive", _keepalive),
)
