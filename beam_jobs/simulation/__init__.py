"""Parts of the scene simulator: places, landscape, acquisitions, radar, optics, export. See beam_jobs/simulation/simulate.py."""
