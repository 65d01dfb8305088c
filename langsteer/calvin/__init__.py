"""What CALVIN is: its files, its geometry, its tasks (NumPy only)."""
