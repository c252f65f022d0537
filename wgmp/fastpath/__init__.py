"""The fast path: the only code that runs once per packet, as batch functions over records.

`interface.py` says what it is. `reference.py` is plain Python and always there; `native/` is Rust,
built with the package where there is a Rust toolchain. Both pass the same tests.
"""

import os

# numpy's linear algebra, which nobody here uses, starts a thread per core when it is imported.
# They end at the first fork, but from then on the C library prepares for cancelling each system
# call: 3 % of what small packets cost.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
