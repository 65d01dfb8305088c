"""Rollouts, experiments, the long-horizon benchmark and the report."""
