"""Augmentation and standardisation of batches, on the device."""
