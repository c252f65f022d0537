"""The text of `wg show` (wireguard-tools, src/show.c): its words, its order, its colours."""

from __future__ import annotations

from collections.abc import Iterator

from wgmp.observe.status import DeviceStatus, PeerStatus

# ANSI X3.64: bold, and the colours that `wg` uses.
_RESET, _BOLD = "\033[0m", "\033[1m"
_GREEN, _YELLOW, _CYAN, _RED = "\033[32m", "\033[33m", "\033[36m", "\033[31m"
_UNITS = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
_SIZES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


class StatusText:
    """Writes devices as text. `colour`: with ANSI colours; `now`: UNIX seconds."""

    def __init__(self, colour: bool, now: int) -> None:
        self._colour = colour
        self._now = now

    def devices(self, devices: list[DeviceStatus]) -> str:
        """Return all devices, with a blank line between them."""
        return "\n\n".join("\n".join(self._device(device)) for device in devices)

    def _device(self, device: DeviceStatus) -> Iterator[str]:
        before = _RESET if self._colour else ""
        yield before + self._title("interface", device.interface, _GREEN)
        if device.public_key:
            yield self._line("public key", device.public_key)
        if device.private_key:
            yield self._line("private key", device.private_key)
        if device.listen_port:
            yield self._line("listening port", str(device.listen_port))
        if device.fwmark:
            yield self._line("fwmark", f"0x{device.fwmark:x}")
        for peer in device.peers:
            yield ""
            yield from self._peer(peer)

    def _peer(self, peer: PeerStatus) -> Iterator[str]:
        yield self._title("peer", peer.public_key, _YELLOW)
        if peer.name:
            yield self._line("name", peer.name)
        if peer.preshared_key:
            yield self._line("preshared key", peer.preshared_key)
        if peer.endpoint:
            yield self._line("endpoint", peer.endpoint)
        yield self._line("allowed ips", self._allowed_ips(peer.allowed_ips))
        if peer.latest_handshake:
            yield self._line("latest handshake", self._ago(peer.latest_handshake))
        if peer.rx_bytes or peer.tx_bytes:
            received, sent = self._size(peer.rx_bytes), self._size(peer.tx_bytes)
            yield self._line("transfer", f"{received} received, {sent} sent")
        if peer.persistent_keepalive:
            yield self._line(
                "persistent keepalive", f"every {self._duration(peer.persistent_keepalive)}"
            )

    def _title(self, what: str, name: str, colour: str) -> str:
        return f"{self._paint(what, colour + _BOLD)}: {self._paint(name, colour)}"

    def _line(self, what: str, text: str) -> str:
        return f"  {self._paint(what, _BOLD)}: {text}"

    def _allowed_ips(self, prefixes: list[str]) -> str:
        if not prefixes:
            return "(none)"
        return ", ".join(
            f"{address}{self._paint('/', _CYAN)}{length}"
            for address, _, length in (prefix.partition("/") for prefix in prefixes)
        )

    def _ago(self, then: int) -> str:
        if then == self._now:
            return "Now"
        if then > self._now:
            warning = "System clock wound backward; connection problems may ensue."
            return f"({self._paint(warning, _RED)})"
        return f"{self._duration(self._now - then)} ago"

    def _duration(self, seconds: int) -> str:
        parts = []
        for unit, length in _UNITS:
            count, seconds = divmod(seconds, length)
            if count:
                parts.append(f"{count} {self._paint(unit + 's' * (count > 1), _CYAN)}")
        return ", ".join(parts)

    def _size(self, count: int) -> str:
        for unit, length in _SIZES:
            if count >= length:
                return f"{count / length:.2f} {self._paint(unit, _CYAN)}"
        return f"{count} {self._paint('B', _CYAN)}"

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour else text
