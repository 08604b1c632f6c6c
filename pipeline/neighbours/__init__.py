"""Search for similar patches: the commands `embed` and `search`.

- `commands`: the command line; read it first.
- `scene_patches`: cut a folder of scenes into patches for `embed --scenes`.
- `answers`: what a search found, as a table and a picture.

The index and the search itself are in `models/neighbours`. Only
`pipeline/__main__.py` imports this room.
"""
