"""Rasters: files that hold pixels, whatever their format, behind the few calls the readers need; `opening.py` opens them."""
