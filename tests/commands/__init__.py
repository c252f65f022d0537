"""Tests of wgmp.commands, on a gateway that stands still."""
