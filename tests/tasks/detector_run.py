"""Tiny detectors in one and two stages; test_detector_training.py trains them.

`python detector_run.py FOLDER` trains both on all devices and writes weights.
"""

import pathlib
import sys

import jax
import numpy as np

import jaxdistill as jd
from jaxdistill.core.types import Dataset, Network, Recipe
from jaxdistill.networks import layers
from jaxdistill.networks.surgery import detectors, two_stage
from jaxdistill.networks.weights import files
from jaxdistill.phases import joint
from jaxdistill.tasks import detection, two_stage_detection


def tiny(kind: str = 'two') -> Network:
  """Returns a detector in 'one' stage or in 'two'."""
  stages = [
    jd.Stage('stem', layers.ConvUnit(2, stride=2)),
    *(
      jd.Stage(f'group{i}', layers.ConvUnit(4, stride=2)) for i in (1, 2, 3, 4)
    ),
    jd.Stage('pool', layers.Pool()),
  ]
  backbone = jd.Network(tuple(stages))
  if kind == 'one':
    return detectors.retinanet(
      backbone, num_classes=2, width=4, depth=1, scales=(1.0,)
    )
  return two_stage.faster_rcnn(
    backbone,
    num_classes=2,
    width=4,
    head_width=8,
    size=3.0,
    count=6,
    candidates=8,
  )


def squares(count: int = 8, size: int = 32) -> Dataset:
  """Images with one bright square each, of class 0 or 1."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 40, (count, size, size, 3)).astype(np.uint8)
  boxes = np.zeros((count, 1, 4), np.float32)
  classes = np.arange(count)[:, None] % 2
  for image, box, label in zip(images, boxes, classes):
    top, left = rng.integers(0, size - 14, 2)
    image[top : top + 14, left : left + 14, label[0]] = 255
    box[0] = top, left, top + 14, left + 14
  columns = {'image': images, 'boxes': boxes, 'classes': classes}
  return jd.data.from_columns(columns, columns, num_classes=2, validation=2)


DATA = squares()
TASKS = {
  'one': detection(),
  'two': two_stage_detection(anchor_samples=32, region_samples=8),
}


def recipe(kind: str = 'two', epochs: int = 10) -> Recipe:
  """Returns how a detector is trained; an epoch has three steps."""
  return jd.recipe(
    DATA,
    TASKS[kind],
    epochs=epochs,
    batch_size=2,
    optimizer=jd.optimizers.sgd(jd.optimizers.constant(rate=0.05), clip=10.0),
  )


LONG = joint.supervised(recipe())
# Three steps. After many more, rounding changes which boxes are proposed.
SHORT = {kind: joint.supervised(recipe(kind, epochs=1)) for kind in TASKS}


def start(seed: int = 0, kind: str = 'two') -> dict[str, jd.Model]:
  return {'student': jd.new_model(tiny(kind), recipe(kind), seed=seed)}


def fit(
  method: jd.Method,
  seed: int = 0,
  *,
  kind: str = 'two',
  data: Dataset = DATA,
  **options,
) -> dict:
  """Returns the student's variables after training."""
  fitted = jd.fit(
    method, start(seed, kind), data, seed=seed, options=jd.FitOptions(**options)
  )
  return fitted.carry['student'].variables


if __name__ == '__main__':
  for kind, method in SHORT.items():
    files.save_tree(
      pathlib.Path(sys.argv[1], f'{kind}.safetensors'),
      fit(method, kind=kind),
      {'devices': jax.device_count()},
    )
