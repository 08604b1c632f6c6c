"""Collect pairs of places from Earth Engine: the verbs plan, fetch and export.

- `commands`: the verbs, with their options and tables.
- `config`: their settings.
- `job`: what a fetch or an export is asked to do.
- `collecting`: units, the choice of a pair, pixel requests and STAC items.
- `plan`: what a fetch will cost.
- `fetch`, `fetch_slice`: patch by patch, inside Beam.
- `watching`: fetch what is newer than the pairs at hand, for `retrain`.
- `export`, `exported_files`: by batch tasks that write to a bucket.
- `patch_files`: the GeoTIFFs of a unit.
- `quota`: rates, shares and retries.
- `job_folder`: one job at a time in a folder.
- `ledger`, `ledger_store`: what was asked and what came, on a disk or a store.

Read `collecting`, then `fetch` and `fetch_slice`. Only the commands and `retrain`
import this room. It imports `earth_engine`, `places`, `catalogs`, `rasters`, `scenes`,
`storage` and contracts.
"""
