"""Earth Engine: the only package that imports `ee`. Connection, listing of scenes, pixels, batch exports, errors."""
