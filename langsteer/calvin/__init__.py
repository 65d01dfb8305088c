"""Facts of CALVIN: its files, its geometry, its tasks (NumPy only)."""
