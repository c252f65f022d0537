"""The benchmark, in the order in which a run goes through it.

| module | |
|---|---|
| command | what to run; the lock; where the results go |
| programs, tunnels | a program from the command line; a tunnel between two, in namespaces |
| cases | what is measured, and the units |
| traffic, cost | iperf3 and ping; CPU seconds and memory of a gateway's processes |
| suite | every case on every pair, in turn, repeated |
| pipeline, functions | the two benchmarks without a network |
| figures, report, machine | medians, spreads, ratios; table, JSON, page; what it ran on |
"""
