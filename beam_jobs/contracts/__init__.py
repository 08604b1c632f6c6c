"""What all packages share: the contracts between jobs, models and tools outside.

Read `bands` and `records` first.

- `bands`: the bands of both sensors, their units, and how pixels are stored.
- `records`: one patch in memory, and the tf.Example that holds it.
- `labels`: label schemas and the remaps between them.
- `label_target`: what stored label values become in a build.
- `layout`: the paths of spans, versions, splits and shards.
- `manifest`: what a version holds and what it was built from.
- `windows`: the versions of several spans that a training reads as one data set.
- `set_aside`: versions that a check refused, and that windows leave out.
- `sealing`: JSON documents that carry their own hash.
- `reasons`: why a scene, a patch or a job is refused, and what to do.
- `errors`: the exit codes of the program, and the base class of its errors.
- `settings`: dataclass trees from YAML, and their hash.
- `locations`, `object_store`: files on this machine and on object stores.
- `shards`: find the shard that is damaged.
- `archives`: bounds on zip files, before anything is unpacked.
- `published`: folders of published models, their cards and versions.
- `fingerprint`: hashes of files, folders and source code.
- `sphere`: distances on the Earth.

All packages may import this room. It imports no other part of the project, and no Beam,
Keras, TFX or Earth Engine.
"""
