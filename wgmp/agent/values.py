"""The values of a settings file that have a form of their own.

Each is a text that was checked when it was made, in the one form it has everywhere: what holds an
`Address` need not check it again, and its `parsed` is what a wg-quick file's is. The constructors
raise ValueError with what to write instead.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from wgmp import config_grammar
from wgmp.addresses import format_prefix, parse_address, parse_prefix, split_host_port
from wgmp.keys import KeyFormatError, from_base64
from wgmp.protocol.allowedips import Prefix


class Value(str):
    """A checked text."""

    __slots__ = ()


class Address(Value):
    """An address with its prefix length, such as 10.0.0.1/24."""

    __slots__ = ()

    def __new__(cls, text: str) -> Address:
        """Check the text; without a length it is the one address."""
        try:
            return super().__new__(cls, str(ipaddress.ip_interface(text)))
        except ValueError:
            raise ValueError(f'{text} is not possible: write for example "10.0.0.1/24"') from None

    @property
    def parsed(self) -> config_grammar.Address:
        """The address with its network."""
        return ipaddress.ip_interface(str(self))


class AllowedIP(Value):
    """A prefix that is routed to a peer, such as 10.0.0.0/8; its host bits are cleared."""

    __slots__ = ()

    def __new__(cls, text: str) -> AllowedIP:
        """Check the text; without a length it is the one address."""
        try:
            return super().__new__(cls, format_prefix(parse_prefix(text)))
        except ValueError as error:
            raise ValueError(f'{text} {error}: write for example "10.0.0.0/8"') from None

    @property
    def parsed(self) -> Prefix:
        """The prefix as the protocol core has it."""
        return parse_prefix(str(self))


class HostPort(Value):
    """An endpoint, such as vpn.example.org:51820 or [2001:db8::1]:51820."""

    __slots__ = ()

    def __new__(cls, text: str) -> HostPort:
        """Check the text; whether the name resolves is not asked here."""
        try:
            split_host_port(text)
        except ValueError as error:
            raise ValueError(f'{text} {error}: write for example "vpn.example.org:51820"') from None
        return super().__new__(cls, text)


class Place(Value):
    """Where a gateway serves metrics, such as 127.0.0.1:9586."""

    __slots__ = ()

    def __new__(cls, text: str) -> Place:
        """Check the text; a name is no address."""
        try:
            parse_address(split_host_port(text)[0])
        except ValueError as error:
            raise ValueError(f'{text} {error}: write for example "127.0.0.1:9586"') from None
        return super().__new__(cls, text)


class PublicKey(Value):
    """A public key: 44 characters of base64."""

    __slots__ = ()

    def __new__(cls, text: str) -> PublicKey:
        """Check the text, which is not repeated in errors: it may be a private key."""
        try:
            from_base64(text)
        except KeyFormatError:
            raise ValueError("this is no key: write the 44 characters `wg pubkey` prints") from None
        return super().__new__(cls, text)

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return from_base64(str(self))


class DnsEntry(Value):
    """A DNS server's address, or a search domain."""

    __slots__ = ()

    def __new__(cls, text: str) -> DnsEntry:
        """Check the text: what looks like an address must be one."""
        try:
            parsed = config_grammar.parse_dns(text)
        except ValueError:
            raise ValueError(f'{text} is no address: write for example "9.9.9.9"') from None
        if not isinstance(parsed, str):
            return super().__new__(cls, str(parsed))
        if re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text) is None:
            raise ValueError(f'{text} is no domain: write for example "example.org"')
        return super().__new__(cls, text)

    @property
    def parsed(self) -> config_grammar.DnsEntry:
        """The server's address, or the domain as a plain text."""
        return config_grammar.parse_dns(str(self))


class TableName(Value):
    """A routing table: off, auto, a number or a name."""

    __slots__ = ()

    def __new__(cls, text: str) -> TableName:
        """Check the text."""
        if config_grammar.TABLE.fullmatch(text) is None:
            raise ValueError(f'{text} is no table: write "off", "auto", a number or a name')
        return super().__new__(cls, text)


def decode_value(kind: type, value: Any) -> Any:
    """Make a value of `kind` of what the file holds: msgspec's dec_hook."""
    if not issubclass(kind, Value):
        raise NotImplementedError(kind)
    if kind is TableName and type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected `str`, got `{type(value).__name__}`")
    return kind(value)
