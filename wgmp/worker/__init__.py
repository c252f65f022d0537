"""The parts of the worker role, in the order of a packet's way.

| module | is |
|---|---|
| `transport` | the packet path: records sealed and opened |
| `actions` | what the protocol core answered, done; and the schedule of the peers' timers |
| `handshakes` | handshake messages, for their peers |
| `configuration` | what the worker was told: key, link, peers, allowed IPs |
| `tenants` | the peers, awake and asleep |
| `indices` | receiver indices |

`wgmp/roles/worker.py` puts them together.
"""
