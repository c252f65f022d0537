"""What a gateway is doing, read from shared memory and shown: statistics, live view, metrics.

| module | is |
|---|---|
| `balance` | the books of each stage: packets in = packets out + drops |
| `snapshot`, `collect` | everything at one moment, and who reads it from shared memory |
| `processes`, `rates` | what psutil knows; what happened between two snapshots |
| `report`, `text` | `wgmp stats` as text; figures as people read them |
| `status`, `status_text` | `wgmp status`: what `wg show` shows |
| `names` | friendly names from a configuration's comments |
| `exposition`, `gateway_metrics`, `peer_metrics` | the metrics in Prometheus' format |
| `metrics_server` | `/metrics` and `/healthz` |

The live view is `wgmp/top/`.
"""
