"""Files that hold pixels, whatever their format, behind one protocol.

Read `raster.py` first, then `opening.py`.

- `raster.py`: the Raster protocol, and GridRaster for formats that GDAL does not read.
- `opening.py`: a path as catalogs write it to an open Raster.
- `sources.py`: which files GDAL may open; `vrt.py`: what a VRT may hold;
  `gdal_paths.py`: which texts are plain paths.
- `gdal.py`: GeoTIFF, JPEG 2000 and whatever else GDAL reads, with its masks.
- `open_files.py`: keeps files of GDAL open while many windows are read.
- `ee_tfrecord.py`, `mixer.py`, `gzip_index.py`: Earth Engine's TFRecord exports.
- `zarr_store.py`: zarr stores, zipped or in tar shards; `zarr_bounds.py`: their limits.
- `placed.py`: rasters whose files do not say where they lie.
- `geotiff.py`: writes GeoTIFF; `writing.py`: a file that GDAL wrote is whole.

It imports `contracts` only. Every other room of `beam_jobs` may import it.
"""
