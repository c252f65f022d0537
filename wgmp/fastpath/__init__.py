"""The fast path: the only code that runs once per packet, as batch functions over records."""
