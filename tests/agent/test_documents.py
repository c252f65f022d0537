"""docs/SETUP.md knows every setting, and its examples are right."""

from __future__ import annotations

import re
from pathlib import Path

from wgmp.agent import settings_file
from wgmp.agent.settings import AgentSettings, NetworkSettings, PeerSettings

SETUP = (Path(__file__).parents[2] / "docs" / "SETUP.md").read_text()


def test_the_documents_settings_are_read() -> None:
    tables = re.findall(r"^ *```toml\n(.*?)^ *```$", SETUP, re.DOTALL | re.MULTILINE)
    settings = settings_file.parse("\n".join(tables), "SETUP.md")
    assert settings.networks["home"].interface == "wg0"
    assert settings.networks["home"].peers[0].name == "laptop"


def test_every_setting_is_in_the_document() -> None:
    for kind in (AgentSettings, NetworkSettings, PeerSettings):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in SETUP or name == "peers", name
