"""How good a segmenter is: counts per patch, made by one pass over a split and kept, and every score that follows from them."""
