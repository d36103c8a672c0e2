"""What a label means: its loss, metrics and predictions."""
