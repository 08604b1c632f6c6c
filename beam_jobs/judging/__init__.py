"""Which pairs of scenes and which patches count, and into which split they go.

Read `pairing.py` and `splits.py` first.

- `pairing.py`: which Sentinel-2 scenes go with a Sentinel-1 scene.
- `baselines.py`: the newest product of a datatake and tile replaces older ones.
- `quality.py`: whether a patch is kept, its score and its weight.
- `registration.py`: the shift between the two images of a patch.
- `splits.py`: spatial blocks, buffers, and the split of a patch.
- `holdouts.py`: events and regions that always go to eval or test.
- `audit.py`, `overlaps.py`: whether train patches show ground of eval or test.

It imports `contracts`, `scenes` and `storage`. `build`, `components` and `pipeline`
import it; `rasters`, `scenes` and `catalogs` may not.
"""
