"""Fuzz targets for what reads hostile bytes: `python -m tests.fuzz TARGET [SECONDS] [SEED]`."""
