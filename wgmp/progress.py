"""Showing that something is under way, to whoever looks at a terminal, and to nobody else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def under_way(text: str) -> Iterator[Callable[[str], None]]:
    """Show `text` on standard error while the block runs; give what changes the text.

    On a terminal only: nothing of it gets into files and pipes. The block prints nothing.
    """
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console  # takes a while to import
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots", text)
    live = Live(
        spinner,
        console=Console(stderr=True),
        transient=True,
        # Otherwise standard output, wherever it leads, would be shown on standard error.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield lambda text: spinner.update(text=text)
