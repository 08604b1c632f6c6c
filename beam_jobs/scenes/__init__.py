"""One scene as physical values: its STAC item, its rasters, and any part of it.

Read `scene.py` first, then `inspection.py` and `readers.py`.

- `scene.py`: Scene, the parsed STAC item.
- `products.py`: satellite, level, baseline and acquisition that an item declares.
- `assets.py`: where a scene's bands and cloud mask are stored; `label_assets.py`: where
  its label is.
- `band_names.py`: the bands that catalogs mean by their names.
- `hrefs.py`: the path or URI that an href stands for.
- `inspection.py`: check a scene against its rasters before any patch is cut.
- `samples.py`: the full-resolution pixels by which a scene is judged.
- `plausibility.py`: whether they can be what the scene says they are.
- `readers.py`: bands and cloud masks of a scene on any grid.
- `label_rasters.py`: labels of a scene on any grid, in ids of any schema.
- `label_vectors.py`: the same for polygons and points of vector files.
- `windows.py`: which pixels of a raster a grid needs, wherever the raster lies.
- `radiometry.py`: stored pixels to dB or reflectance; the 2022 Sentinel-2 offset.
- `resampling.py`: pixels from one grid onto another.
- `grids.py`: grids, windows of patches, conversions to longitude and latitude.
- `footprints.py`: polygons on the globe and their overlap.

It imports `contracts` and `rasters`. Every other room of `beam_jobs` may import it.
"""
