"""A loopback server that speaks Earth Engine's REST surface over simulated scenes, with faults on demand."""
