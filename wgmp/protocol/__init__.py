"""The WireGuard protocol without I/O: no socket, process, clock or random source in here.

Callers pass `now` (monotonic seconds) and inject randomness and TAI64N labels.
"""
