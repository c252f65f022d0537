"""Interfaces around the gateway: what wg-quick does, and a manager for one interface.

| | |
|---|---|
| runner.py, journal.py | running programs; the undo list that outlives a crash |
| link.py | an interface up as wg-quick does it, and down |
| mtu.py, routes.py, firewall.py, resolver.py | its steps |
| quick_file.py, exchange.py, saving.py | wg-quick files written, to settings and back, SaveConfig |
| manager.py | `NetworkManager` on a back end (backend.py): linux.py, windows.py; latency.py |
"""
