"""tools/shape finds each thing it forbids, in small trees made for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SHAPE = CHECKOUT / "tools" / "shape"

CLEAN = {
    "wgmp/__init__.py": "",
    "wgmp/protocol/__init__.py": "",
    "wgmp/protocol/noise.py": "import struct\nfrom wgmp import protocol\n",
    "wgmp/ring.py": "from wgmp.protocol import noise\n",
    "wgmp/roles/__init__.py": "from wgmp.roles.worker import Worker\n",
    "wgmp/roles/worker.py": (
        "import time\nimport wgmp.ring\n\nclass Worker:\n"
        '    """Work."""\n\n    def step(self) -> float:\n        """Do one turn."""\n'
        "        return time.monotonic()\n"
    ),
    "wgmp/roles/udp_reader.py": "from wgmp.protocol.noise import struct\n",
    "wgmp/topology.py": "from wgmp.roles import Worker\n",
    "wgmp/supervisor.py": "from wgmp.topology import Worker\n",
    "wgmp/cli.py": "from wgmp import supervisor\n",
}


def shape(tree: Path, changes: Mapping[str, str]) -> tuple[int, str]:
    """Lay out the clean tree with some files changed; return the exit code and the report."""
    for name, body in {**CLEAN, **changes}.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        documented = body if body.startswith("-") else f'"""A module."""\n{body}'
        path.write_text(documented.removeprefix("-"))
    done = subprocess.run(
        [sys.executable, str(SHAPE), str(tree)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    code, report = shape(tmp_path, {})
    assert code == 0, report
    assert "import cycles: none" in report
    assert "public functions: 1, annotated 100.0 %" in report


@pytest.mark.parametrize(
    ("file", "body", "found"),
    [
        (
            "wgmp/ring.py",
            "from wgmp.roles import Worker\n",
            "import cycle: wgmp.ring <-> wgmp.roles <-> wgmp.roles.worker",
        ),
        (
            "wgmp/ring.py",
            "def late():\n    '''Import late.'''\n    from .roles.worker import Worker\n",
            "import cycle: wgmp.ring <-> wgmp.roles.worker",
        ),
        (
            "wgmp/protocol/noise.py",
            "from wgmp import cli\n",
            "wgmp.protocol.noise imports wgmp.cli",
        ),
        (
            "wgmp/protocol/noise.py",
            "from ..ring import x\n",
            "wgmp.protocol.noise imports wgmp.ring",
        ),
        ("wgmp/protocol/noise.py", "import os.path\n", "wgmp.protocol.noise imports os.path"),
        (
            "wgmp/protocol/noise.py",
            "def key():\n    '''Make one.'''\n    from secrets import token_bytes\n",
            "wgmp.protocol.noise imports secrets.token_bytes",
        ),
        (
            "wgmp/protocol/noise.py",
            "import time as t\nNOW = t.monotonic()\n",
            "wgmp.protocol.noise:3 reads a clock: t.monotonic",
        ),
        (
            "wgmp/protocol/noise.py",
            "from time import monotonic as m\nCLOCK = m\n",
            "wgmp.protocol.noise:3 reads a clock: m",
        ),
        (
            "wgmp/protocol/noise.py",
            "import datetime\nNOW = datetime.datetime.now()\n",
            "wgmp.protocol.noise:3 reads a clock: datetime.datetime.now",
        ),
        (
            "wgmp/roles/udp_reader.py",
            "from wgmp.roles.worker import Worker\n",
            "role wgmp.roles.udp_reader imports wgmp.roles.worker",
        ),
        (
            "wgmp/roles/udp_reader.py",
            "from . import worker\n",
            "role wgmp.roles.udp_reader imports wgmp.roles.worker",
        ),
        (
            "wgmp/topology.py",
            "import wgmp.supervisor\n",
            "wgmp.topology reaches up to wgmp.supervisor",
        ),
        (
            "wgmp/ring.py",
            "import wgmp.cli\n",
            "wgmp.roles.worker reaches up to wgmp.cli",
        ),
        ("wgmp/ring.py", "-", "wgmp.ring has no docstring"),
        ("wgmp/ring.py", "def publish():\n    pass\n", "wgmp.ring.publish has no docstring"),
        ("wgmp/ring.py", "async def f():\n    pass\n", "wgmp.ring.f has no docstring"),
        ("wgmp/ring.py", "class Ring:\n    pass\n", "wgmp.ring.Ring has no docstring"),
        (
            "wgmp/ring.py",
            "class Ring:\n    '''A ring.'''\n    def peek(self):\n        pass\n",
            "wgmp.ring.Ring.peek has no docstring",
        ),
    ],
)
def test_a_broken_rule_is_named_and_fails(tmp_path: Path, file: str, body: str, found: str) -> None:
    code, report = shape(tmp_path, {file: body})
    assert code == 1, report
    assert f"  {found}\n" in report


@pytest.mark.parametrize(
    "body",
    [
        "def _private():\n    pass\n",
        "class _Private:\n    def method(self):\n        pass\n",
        "class Ring:\n    '''A ring.'''\n    def __len__(self):\n        pass\n",
        "def outer():\n    '''Do it.'''\n    def inner():\n        pass\n",
    ],
)
def test_private_names_need_no_docstring(tmp_path: Path, body: str) -> None:
    code, report = shape(tmp_path, {"wgmp/ring.py": body})
    assert code == 0, report


def test_time_as_an_argument_is_no_clock_read(tmp_path: Path) -> None:
    body = "def due(time: float, now: float) -> bool:\n    '''Compare.'''\n    return time < now\n"
    code, report = shape(tmp_path, {"wgmp/protocol/timers.py": body})
    assert code == 0, report


def test_sizes_are_measured(tmp_path: Path) -> None:
    long = "def long() -> None:\n    '''Last.'''\n" + "    print()\n" * 60
    _, report = shape(tmp_path, {"wgmp/ring.py": long, "wgmp/cli.py": long + "#\n" * 100})
    assert "maximum 163 (wgmp.cli)" in report
    assert "longest functions on the packet path: 62 lines, wgmp.ring.long" in report


def test_the_files_on_a_packets_way_are_counted(tmp_path: Path) -> None:
    reference = (
        "from wgmp.fastpath.tun import Intake as packet_intake\n"
        "from wgmp.fastpath.sealing import Sealer\n"
        "def sealer() -> Sealer:\n    '''Seal.'''\n    return Sealer()\n"
    )
    changes = {
        "wgmp/fastpath/reference.py": reference,
        "wgmp/worker/transport.py": "def f(path) -> None:\n    '''F.'''\n    path.sealer()\n",
        "wgmp/worker/timers.py": "",
        "wgmp/roles/tun_reader.py": "",
        "wgmp/roles/worker.py": "from wgmp.worker import timers, transport\nWorker = transport\n",
    }
    _, report = shape(tmp_path, changes)
    way = "roles.tun_reader, fastpath.tun, roles.worker, worker.transport, fastpath.sealing"
    assert f"files a packet passes from the TUN to UDP: 5 ({way})" in report


def test_unannotated_functions_are_counted(tmp_path: Path) -> None:
    half = "def a(x: int) -> int:\n    '''A.'''\ndef b(x) -> int:\n    '''B.'''\n"
    _, report = shape(tmp_path, {"wgmp/ring.py": half})
    assert "public functions: 3, annotated 66.7 %" in report


def test_no_tree_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SHAPE), str(tmp_path)], capture_output=True)
    assert done.returncode == 2


def test_the_checkout_keeps_the_rules() -> None:
    done = subprocess.run([sys.executable, str(SHAPE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
