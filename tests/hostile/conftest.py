"""The `site` fixture: one gateway for all tests of a module, each of which brings its peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.tunnel import log_tail

from wgmp.netns import Namespaces

from . import site as sites


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sites.Site]:
    """Give a gateway on the pipeline topology with two workers, and a world beside it."""
    with Namespaces() as spaces:
        made = sites.build(spaces, tmp_path_factory.mktemp("site"))
        yield made
        made.close()
        print(log_tail(made.gateway))
