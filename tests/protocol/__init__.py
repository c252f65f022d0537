"""Tests of the protocol core: no sockets, no sleeps, time is a number."""
