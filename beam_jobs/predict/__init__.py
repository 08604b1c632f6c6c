"""Maps: whole scenes -> Cloud Optimized GeoTIFFs, polygons, pictures, STAC.

Read `driver` first, then `graph`.

- `commands`: the verbs `predict`, `predict-remote` and `flood`.
- `config`: settings of the maps.
- `driver`: one run from start to end.
- `graph`: the Beam graph: inspect scenes, predict parts, write files.
- `segmenters`: a published model as a function of pixels.
- `ensembles`: several models, or views of a window, as one.
- `remote_models/`: a model behind a server, as such a function too.
- `windows`, `blending`: what the model sees at once, and how its answers join.
- `pipelining`: reading, predicting and writing at the same time.
- `memory`: a worker gives back what it has freed.
- `parts`: a part of a scene is predicted and kept.
- `products`: all files of one map: `maps`, `polygons` by `outlines`, `pictures`.
- `map_folders`: finished maps, which appear as a whole.
- `rejections`: maps that failed, which the next run remembers.
- `floods`: the verb `flood`: water that is not always there, and its areas.
- `stac`: the items of maps and of the model, and their collection.

It imports `build` for scenes and pairs. No other room imports it.
"""
