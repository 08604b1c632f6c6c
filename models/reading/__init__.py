"""Reading shards: from files to batches of records, for `models.input_pipeline`.

- `record_source`: start here. Records from gzip files, from copies on disk or memory.
- `inflated_shards`, `free_memory`: the caches.
- `epochs`: which records make up which batch; `data_service`: reading elsewhere.
- `passes`: reading every record once, by this process or a server.
- `loopback`: shuts the port of the data service to other machines.
- `shard_checks`: whether shards fit the manifest, before a training.

`models.input_pipeline` and the trainers import it.
"""
