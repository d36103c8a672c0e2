"""Training: the loop, compiled programs, checkpoints, logs, processes."""
