"""Files as Beam workers see them, on this machine and on object stores.

- `files`: read, write, list, move and delete files. Read this first.
- `stores`: the clients of object stores, through Beam.
- `locks`: one job at a time on one output. `leases`: the same on object stores.

All rooms of `beam_jobs` but `contracts` may import this room. Code outside of Beam
workers uses `contracts.locations` instead.
"""
