"""Training: data loading, the trainer, checkpoints, logs."""
