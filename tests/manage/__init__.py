"""Tests of wgmp.manage."""
