"""Data sets, their batches, and augmentation on the device."""
