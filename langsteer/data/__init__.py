"""CALVIN to Zarr: the point-cloud pipeline, the store, the conversion."""
