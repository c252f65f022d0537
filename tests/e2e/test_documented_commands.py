"""The commands in the documents are typed as a reader would, one after the other, and succeed.

The reader sits at a machine of their own: a network namespace, and a mount namespace whose /etc is
a copy and whose /run is empty, with the files that the documents presume.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from wgmp.netns import Namespaces, wait_for

from .tunnel import SCRIPTS, key

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    path.name: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LIMIT_S = 30.0

# Blocks by their document and first words, in the order in which they are typed.
SCENES = {
    "wg-quick": [
        ("README.md", "WG_QUICK_USERSPACE_IMPLEMENTATION=wgmpd wg-quick up wg0\nwg-quick")
    ],
    "wg and ip": [("README.md", "wgmpd wg0")],
    "a configuration": [
        ("README.md", "wgmp supervise wg0 --config /etc/wireguard/wg0.conf --foreground"),
        ("README.md", "wgmp add-peer wg0"),
        ("README.md", "wgmp status "),
        ("README.md", "wgmp events"),
        ("EVENTS.md", "wgmp capture wg0 -w wg0.pcapng"),
        ("EVENTS.md", "tshark -r wg0.pcapng -Y"),
        ("EVENTS.md", "wgmp capture wg0 --outer -w wg0.pcapng --keys"),
        ("OPERATIONS.md", "/opt/wgmp/bin/pip install --upgrade .\nwgmp upgrade wg0"),
    ],
    "metrics": [("README.md", "wgmp supervise wg0 --config /etc/wireguard/wg0.conf --metrics")],
    "the agent": [("README.md", "wgmp agent ")],
    "from nothing to a tunnel": [("SETUP.md", "wgmp agent check")],
}

# Lines that are not run, and why.
NOT_RUN = {
    "tools/demo ": "test_demo runs it",
    "tools/check ": "it runs this",
    "apt-get install ": "changes the machine",
    "python3 -m venv /opt/wgmp": "changes the machine",
    "/opt/wgmp/bin/pip install .": "changes the machine",
    "WGMP_COMPILE=1 /opt/wgmp/bin/pip install .": "changes the machine",
    "/opt/wgmp/bin/pip install --upgrade .": "changes the machine",
    "ln -s /opt/wgmp/bin/wgmp ": "changes the machine",
    "useradd --system ": "changes the machine",
    "share=$(/opt/wgmp/bin/python ": "test_systemd runs the unit's command",
    'cp "$share/wgmp@.service" ': "needs systemd",
    'cp "$share/wgmp.tmpfiles.conf" ': "needs systemd",
    "systemd-tmpfiles --create wgmp.conf": "needs systemd",
    "systemctl ": "needs systemd",
    "WG_QUICK_USERSPACE_IMPLEMENTATION=wgmpd wg-quick up wg0     # or wgmpd utun": "macOS",
    "wgmp supervise wg0 --aead ipsec-mb": "test_aead has gateways with it",
    "wgmp top ": "test_top has a terminal for it",
    "out:  TUN ": "a picture",
    "in:   UDP ": "a picture",
    "hs:   UDP ": "a picture",
    "> {": "test_control_api has the conversations",
    "< {": "test_control_api has the conversations",
}

# These run until Ctrl-C: the first until the reader is done, the others until they have shown much.
STAYS = re.compile(r"wgmp (supervise|agent)\b(?! check)")
LASTS = re.compile(r"wgmp (events|capture)\b")
OUTPUT = re.compile(r"wg0: ")

MACHINE = """
mkdir etc && mount -t tmpfs none etc && cp -a /etc/. etc && mount --bind etc /etc
mount -t tmpfs none /run
mkdir -p /etc/wireguard /etc/wgmp && chmod 700 /etc/wireguard
echo ready && exec sleep 600
"""


def blocks(name: str, *languages: str) -> list[str]:
    """Return the blocks of a document that are in one of the languages."""
    return [
        "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        for indent, language, text in BLOCK.findall(DOCUMENTS[name])
        if language in languages
    ]


def shell_blocks(name: str) -> list[str]:
    """Return those with commands, or whatever else names no language."""
    return blocks(name, "", "sh", "bash", "shell", "console")


def block(name: str, start: str) -> str:
    """Return the one block of a document that begins so."""
    (found,) = (each for each in shell_blocks(name) if each.startswith(start))
    return found


def is_run(line: str) -> bool:
    """Tell whether a line of a block is typed."""
    return not line.startswith(tuple(NOT_RUN))


def test_every_block_is_typed_or_it_is_said_why_not() -> None:
    typed = {block(*each) for scene in SCENES.values() for each in scene}
    for name in DOCUMENTS:
        for each in shell_blocks(name):
            lines = [] if each in typed else each.splitlines()
            assert [line for line in lines if is_run(line)] == [], f"in {name}"


class Reader:
    """Someone at a machine of their own, who follows a document."""

    def __init__(self, world: Namespaces, directory: Path) -> None:
        self.space = world.add("reader")
        self.directory = directory
        log = directory / "machine.log"
        machine = self.space.start("sh", "-c", f"cd {directory} && {MACHINE}", log=log)
        wait_for(lambda: "ready" in log.read_text(), LIMIT_S, "the machine is there")
        # Its root, too: the tests may run in a chroot.
        target = ("--target", str(machine.pid), "--mount", "--net", "--root")
        self._enter = ["nsenter", *target, "bash", "-c"]
        self._staying: list[subprocess.Popen[str]] = []
        self.peer = key("pubkey", key("genkey"))

    def start(self, line: str) -> subprocess.Popen[str]:
        """Type a command; its output goes to a pipe, what is wrong to the same."""
        path = f"{SCRIPTS}:{os.environ['PATH']}"
        return subprocess.Popen(
            [*self._enter, f"cd {self.directory}; {line}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": path, "TERM": "xterm"},
            start_new_session=True,
        )

    def run(self, line: str) -> str:
        """Type a command that ends, and succeeds; return what it printed."""
        process = self.start(line)
        printed, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, f"{line}: {printed}"
        return printed

    def writes(self, path: str, content: str) -> None:
        """Write a file that is only for its owner."""
        (self.directory / "written").write_text(content)
        self.run(f"umask 077; cat written > {path}")

    def types(self, text: str) -> None:
        """Type the lines of a block, and compare what they print with what is shown."""
        text = text.replace("PUBLIC_KEY", self.peer).replace("--peer KEY", f"--peer {self.peer}")
        printed = ""
        for line in filter(is_run, text.splitlines()):
            if OUTPUT.match(line):
                assert shape(line) in map(shape, printed.splitlines())
            elif STAYS.match(line):
                self._stay(line)
            elif LASTS.match(line):
                self._last(line)
            else:
                printed = self.run(line)

    def _stay(self, line: str) -> None:
        process = self.start(line)
        self._staying.append(process)
        asks = "wgmp networks | grep running" if "agent" in line else "wg show wg0"

        def serves() -> bool:
            assert process.poll() in (None, 0), process.communicate()[0]
            asked = self.start(asks)
            asked.communicate(timeout=LIMIT_S)
            return asked.returncode == 0

        wait_for(serves, LIMIT_S, f"{line} works")

    def _last(self, line: str) -> None:
        process = self.start(line)

        def works() -> bool:
            assert process.poll() is None, f"{line}: {process.communicate()[0]}"
            self.run("ping -c1 -W0.1 10.0.0.2 || true")
            if "capture" in line:
                first = psutil.Process(process.pid)
                return any(map(captures, [first, *first.children(recursive=True)]))
            return bool(select.select([process.stdout], [], [], 0)[0])

        wait_for(works, LIMIT_S, f"{line} works")
        self.run("ping -c3 -i0.1 -W0.1 10.0.0.2 || true")
        # tshark says 2 when Ctrl-C came before the end of what it reads.
        assert "Traceback" not in interrupted(process, *([2] if "tshark" in line else []))

    def leave(self) -> None:
        """End with Ctrl-C what still runs."""
        for process in self._staying:
            if process.poll() is None:
                interrupted(process)


def captures(process: psutil.Process) -> bool:
    """Tell whether a process has the rings of a capture."""
    return "memfd:wgmp:tap" in Path(f"/proc/{process.pid}/maps").read_text()


def interrupted(process: subprocess.Popen[str], *also: int) -> str:
    """Press Ctrl-C where a command runs; return what it printed until it ended in order.

    `also`: exit codes that are in order beside the usual ones.
    """
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode in (0, 130, *also), printed
    return printed


def shape(line: str) -> str:
    """Return a line with all numbers alike."""
    return re.sub(r"\d+(\.\d+)*", "0", line)


@pytest.fixture
def reader(namespaces: Namespaces, tmp_path: Path) -> Iterator[Reader]:
    """Give a reader whose machine has the files that the documents speak of."""
    reader = Reader(namespaces, tmp_path)
    private_key = key("genkey")
    reader.writes("/etc/wireguard/private.key", private_key + "\n")
    reader.writes(
        "/etc/wireguard/wg0.conf",
        f"[Interface]\nPrivateKey = {private_key}\nAddress = 10.0.0.1/24\nListenPort = 51820\n\n"
        f"[Peer]\nPublicKey = {reader.peer}\nAllowedIPs = 10.0.0.2/32\nEndpoint = 127.0.0.1:9\n",
    )
    yield reader
    reader.leave()


@pytest.mark.root
@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
@pytest.mark.parametrize("scene", SCENES)
def test_the_commands_of_the_documents_succeed(reader: Reader, scene: str) -> None:
    settings = "\n".join(blocks(SCENES[scene][0][0], "toml"))
    reader.writes("/etc/wgmp/agent.toml", settings.replace("PUBLIC_KEY", reader.peer))
    for each in SCENES[scene]:
        reader.types(block(*each))
