"""Tasks: what targets mean, as losses, metrics and predictions."""

from jaxdistill.tasks.classification import classification
from jaxdistill.tasks.depth import depth
from jaxdistill.tasks.imitation import embedding, imitation
from jaxdistill.tasks.segmentation import segmentation
from jaxdistill.tasks.verification import verification

__all__ = [
  'classification',
  'depth',
  'embedding',
  'imitation',
  'segmentation',
  'verification',
]
