"""DP3, the 3D Diffusion Policy."""
