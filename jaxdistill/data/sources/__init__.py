"""Data sets: the digits, .npz files, TFDS, and folders of images."""
