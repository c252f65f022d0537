"""The fast path: the only code that runs once per packet, as batch functions over records.

`interface.py` says what it is. `reference.py` is plain Python and always there; `native/` is Rust,
built with the package where there is a Rust toolchain. Both pass the same tests.
"""
