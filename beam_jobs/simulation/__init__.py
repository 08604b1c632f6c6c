"""The scene simulator: Sentinel-1/2 pairs with labels, for demos and tests.

- `simulate`: writes all scenes and the catalog.
- `export`: writes one scene as GeoTIFFs and a STAC Item.
- `places`, `acquisitions`, `swaths`: where and when the satellites look, and which
  pixels they miss.
- `landscape`, `terrain`, `phenology`: what lies on the ground, and its season.
- `radar`: Sentinel-1 backscatter of a landscape.
- `optics`, `spectra`, `clouds`: Sentinel-2 reflectance of a landscape.
- `fields`: random streams and smooth random fields.

Read `simulate` first. Commands, the catalog and the emulator may import this room. It
imports settings, contracts, `rasters` and `scenes`.
"""
