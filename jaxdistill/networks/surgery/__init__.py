"""Changes of architectures: edits, narrowing, splitting, noise."""
