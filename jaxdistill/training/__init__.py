"""The loop that runs any method, its checkpoints and its log."""
