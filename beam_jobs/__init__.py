"""Data jobs: from scenes to training shards, and from scenes to maps.

Read `contracts` first, then `build`. `config` holds the settings of the jobs.

- `contracts`: bands, records, manifests and settings that all packages share.
- `catalogs`: STAC items from exports, the simulator and public data sets.
- `rasters`: one interface for all raster formats.
- `scenes`: one scene as physical values on a grid.
- `judging`: which pairs are used, and which split they go to.
- `build`: the Beam job that makes a version of shards.
- `data_card`: what a version holds, for people and for programs.
- `places`, `collect`, `earth_engine`: which places are fetched, and from where.
- `simulation`, `emulator`: simulated scenes, and a local Earth Engine for tests.
- `engines`: what a job needs when a cluster runs it.
- `storage`: files on disk and on object stores, as Beam workers use them.
- `commands`, `terminal`: the commands, and how all commands talk to a person.
- `errors`, `runner`, `worker`, `local_worker`, `repeating`: the error type, the options
  of Beam, its worker programs, and repeated calls.
- `startup`, `quick_beam`: quicker imports, and quicker Beam jobs.

`models`, `components` and `pipeline` stand above this package. `models` may import
`contracts` only.
"""
