"""Tasks: what targets mean, as losses, metrics and predictions.

`tasks.detection` is a function, not the folder of the same name; use
`from jaxdistill.tasks.detection import ...` to import from the folder.
"""

from jaxdistill.tasks.classification import classification
from jaxdistill.tasks.depth import depth
from jaxdistill.tasks.detection.coco_results import coco_results
from jaxdistill.tasks.detection.task import detection
from jaxdistill.tasks.detection.two_stage import two_stage_detection
from jaxdistill.tasks.imitation import embedding, imitation
from jaxdistill.tasks.segmentation import segmentation
from jaxdistill.tasks.verification import verification

__all__ = [
  'classification',
  'coco_results',
  'depth',
  'detection',
  'embedding',
  'imitation',
  'segmentation',
  'two_stage_detection',
  'verification',
]
