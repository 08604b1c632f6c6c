"""Places: where on Earth pairs are collected, and in which time windows.

- `place`: a place, its patch grid, and the files that hold places.
- `sampling`: draws places over land, by land cover or around cities, or reads a list.
- `land_cover`: where each class lies, for drawing by land cover.
- `spacing`: keeps places a least distance apart.
- `config`: settings of `terrapair sample`.

Read `place` first. `collect` and the commands may import this room. It imports
contracts, `scenes` and `storage`.
"""
