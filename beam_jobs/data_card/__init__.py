"""The data card: a description of a version for people and for programs.

Read `card` first.

- `card`: the card as JSON and Markdown.
- `contents`: counts over the patches in the shards.
- `few_labels`: advice where little of what is labelled reaches train.
- `statistics`: statistics of the bands, which also stand in the manifest.
- `pictures`: the map and the histograms of the card.
- `land`: land and sea in half-degree cells, from `land.png`.

`build`, the commands in `beam_jobs` and the package `pipeline` may import this room.
"""
