"""The build: a Beam job that turns catalogs of scenes into a version of shards.

Read `driver` first, then `graph`.

- `driver`: one build from start to end; writes manifest and data card.
- `choice`: which version is built, or is there already.
- `input_hashes`, `input_files`: what the catalogs and their files hold, as one hash.
- `graph`: the Beam graph as a whole.
- `transforms`: the steps of the graph: inspect scenes, make pairs, cut patches.
- `patches`: one strip of a pair is cut into patches that are kept or refused.
- `label_checks`: vector files before a build, classes without a pixel and few labels
  after it.
- `duplicates`: patches that show the same ground by the same two passes.
- `spool`: encoded patches on disk between cutting and sharding.
- `stored`: what the spool and the summary hold, as files without pickles.
- `shard_sizes`, `writers`: the number of shards, and the shards themselves.
- `spans`: which scenes earlier spans used.
- `directory`: how the building directory becomes the version.
- `verify`: compares the shards of a version with its manifest.

The commands in `beam_jobs` and the packages `components` and `pipeline` may import this
room.
"""
