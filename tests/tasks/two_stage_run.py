"""A tiny detector in two stages; test_two_stage_training.py trains it.

`python two_stage_run.py FILE` trains it on all devices and writes its weights.
"""

import sys

import jax
import numpy as np

import jaxdistill as jd
from jaxdistill.core.types import Dataset, Network
from jaxdistill.networks import layers
from jaxdistill.networks.surgery import two_stage
from jaxdistill.networks.weights import files
from jaxdistill.phases import joint
from jaxdistill.tasks import two_stage_detection


def tiny() -> Network:
  stages = [
    jd.Stage('stem', layers.ConvUnit(2, stride=2)),
    *(
      jd.Stage(f'group{i}', layers.ConvUnit(4, stride=2)) for i in (1, 2, 3, 4)
    ),
    jd.Stage('pool', layers.Pool()),
  ]
  return two_stage.faster_rcnn(
    jd.Network(tuple(stages)),
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
RECIPE = jd.recipe(
  DATA,
  two_stage_detection(anchor_samples=32, region_samples=8),
  epochs=10,
  batch_size=2,
  optimizer=jd.optimizers.sgd(jd.optimizers.constant(rate=0.05), clip=10.0),
)
LONG = joint.supervised(RECIPE)
# Three steps. After many more, rounding changes which boxes are proposed.
SHORT = joint.supervised(RECIPE._replace(epochs=1))


def start(seed: int = 0) -> dict[str, jd.Model]:
  return {'student': jd.new_model(tiny(), RECIPE, seed=seed)}


def fit(method: jd.Method, seed: int = 0, **options) -> dict:
  """Returns the student's variables after training."""
  fitted = jd.fit(
    method, start(seed), DATA, seed=seed, options=jd.FitOptions(**options)
  )
  return fitted.carry['student'].variables


if __name__ == '__main__':
  files.save_tree(sys.argv[1], fit(SHORT), {'devices': jax.device_count()})
