"""`wgmp top`: a gateway live in a terminal.

| module | is |
|---|---|
| `view` | what the user has chosen: order, filter, pause, place in the list; which key does what |
| `peers` | the rows of the peers' table, and how each column sorts |
| `screen` | one frame for a width and a height, as rich renders it |
| `terminal` | keys from a terminal, a frame a second onto it |
"""
