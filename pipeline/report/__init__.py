"""The report of a run: tables for the terminal and pictures in the report folder.

- `page`: the parts of the report in order; read it first.
- `results`: what the page shows, gathered from artifacts; `run_record` reads ML
  Metadata for it.
- `drift`: what differs from the data of the models in service.
- `scores`: tables and calibration picture of a segmenter's scores.
- `pictures`: the picture of a task; `patch_images` turns pixels into colours.
- `example_picture`: a program of its own, which draws the README's picture.

`pipeline/__main__.py` imports `page` and `results`; `pipeline/neighbours` imports
`patch_images`.
"""
