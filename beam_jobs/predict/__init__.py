"""Maps: whole scenes -> Cloud Optimized GeoTIFFs, polygons, pictures, STAC.

Read `driver` first, then `graph`.

- `commands`: the verbs `predict` and `flood`.
- `config`: settings of the maps.
- `driver`: one run from start to end.
- `graph`: the Beam graph: inspect scenes, predict parts, join them.
- `segmenters`: a published model as a function of pixels.
- `remote`: a model behind TensorFlow Serving, as such a function too.
- `windows`, `blending`: what the model sees at once, and how its answers join.
- `parts`: a part of a scene is predicted and kept.
- `products`: all files of one map: `maps`, `polygons`, `pictures`.
- `map_folders`: finished maps, which appear as a whole.
- `rejections`: maps that failed, which the next run remembers.
- `floods`: the verb `flood`: water that is not always there, and its areas.
- `stac`: the items of maps and their collection.

It imports `build` for scenes and pairs. No other room imports it.
"""
