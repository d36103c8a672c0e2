"""Batches of data sets in memory and of encoded images."""
