"""Steering the denoising with language."""
