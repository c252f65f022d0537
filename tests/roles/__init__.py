"""Roles on real rings, driven by hand."""
