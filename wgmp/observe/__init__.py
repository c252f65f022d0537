"""What a gateway is doing, read from shared memory and shown: statistics, live view, metrics.

| module | |
|---|---|
| `balance` | the books of each stage: packets in = packets out + drops |
"""
