"""Public data sets and export layouts as STAC items: one module a layout, `layouts.py` lists them."""
