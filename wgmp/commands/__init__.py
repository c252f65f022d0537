"""Subcommands of `wgmp` beyond cli.py: each module adds its own to the parser, and runs it.

A module here is imported whenever `wgmp` starts, so what takes a while to import is imported by
the function that needs it.
"""
