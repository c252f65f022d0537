"""`python -m wgmp` is the `wgmp` command."""

import sys

from wgmp.cli import main

sys.exit(main())
