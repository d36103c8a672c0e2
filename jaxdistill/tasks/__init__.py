"""Tasks: what labels mean, as losses, metrics and predictions."""

from jaxdistill.tasks.classification import classification

__all__ = ['classification']
