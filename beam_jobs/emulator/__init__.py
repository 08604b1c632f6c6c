"""An emulator of Earth Engine: a loopback server over simulated scenes.

It speaks the part of Earth Engine's REST API that the client uses, and it makes faults
on demand.

- `server`: sockets. `service`: routes, faults, limits and the request log.
- `archive`: simulated scenes under the names and ids of Earth Engine's collections.
- `discovery`: the methods of the server, for Google's client library.
- `expressions`, `algorithms`, `elements`, `images`: evaluate what the client asks for.
- `rasters`: pixels on a requested grid, and file formats.
- `tasks`: export tasks. `costs`: what requests cost.
- `faults`, `config`, `errors`: settings of the server and its error answers.

Read `service` first. The commands and tests import this room. It imports settings,
contracts, `scenes` and `simulation`, but never `earth_engine`, which it tests.
"""
