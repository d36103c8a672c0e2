"""Pruning: masks of weights, and channels taken out of networks."""
