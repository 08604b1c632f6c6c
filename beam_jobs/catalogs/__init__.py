"""Catalogs of scenes: STAC items from exports, public data sets and the simulator.

Read `catalog.py` first, then `layouts.py`.

- `catalog.py`: read, write and find catalogs.
- `layouts.py`: which folder is which data set, and its reader.
- `items.py`: STAC items and assets over rasters, for all layouts.
- `stac_items.py`: folders of item files and ItemCollections, as downloaded.
- `ee_timeseries.py`, `ee_tfrecord.py`: Earth Engine exports.
- `zarr_shards.py`: SSL4EO-S12 v1.1 and sharded TerraMesh.
- `bigearthnet.py`, `dfc2020.py`, `sen12ms.py`, `sen12ms_splits.py`, `sen1floods11.py`,
  `ssl4eo.py`, `terramesh.py`: one public data set each.

It imports `rasters`, `scenes`, `simulation` and `storage`. `build`, `collect` and
`pipeline` import it; `rasters`, `scenes` and `judging` may not.
"""
