"""Drawn scenes with masks and depths, to try such tasks without data."""

from collections.abc import Sequence

import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays

NAMES = ('floor', 'wall', 'ball', 'box', 'cone')
# Metres: the height of the camera, the distances of the wall and the radius of
# things.
_CAMERA, _WALL, _RADIUS = 1.5, (6.0, 10.0), (0.35, 0.8)
# Pixels of the focal length for each pixel of the images' height.
_FOCAL = 0.9


def scenes(
  *,
  num_train: int = 400,
  num_test: int = 100,
  size: Sequence[int] = (48, 64),
  seed: int = 0,
  validation: float = 0.1,
  split_seed: int = 0,
) -> Dataset:
  """Returns drawn rooms with a few things in them.

  A room has a floor, a wall, and balls, boxes and cones of random sizes and
  colours, which stand on the floor and hide each other. A pinhole camera at a
  height of 1.5 metres looks at the horizon. Noise and haze are added. The
  scenes are for examples and tests; results on them say nothing about real
  images.

  The columns are 'image', uint8 `[N, H, W, 3]`, 'mask', uint8 `[N, H, W]`, for
  the task `segmentation`, and 'depth', float32 `[N, H, W]`, in metres, for the
  task `depth`.

  Args:
    num_train: the number of scenes for training and validation.
    num_test: the number of scenes of the test split.
    size: the height and width of the images in pixels, at least 16.
    seed: chooses the scenes.
    validation: the size of the validation split: a fraction of the training
      set, or a number of scenes if above 1. 0: there is no such split.
    split_seed: chooses the scenes of the validation split.

  Raises:
    UsageError: a number is out of its range.
  """
  height, width = (
    checks.integer('size', side, at_least=16)
    for side in checks.length('size', size, 2, 'sides of an image')
  )
  counts = [
    checks.integer('num_train', num_train),
    checks.integer('num_test', num_test),
  ]
  checks.integer('seed', seed, at_least=0)
  rng = np.random.default_rng(seed)
  train, test = (
    [_scene(rng, height, width) for _ in range(count)] for count in counts
  )
  return arrays.from_columns(
    *(
      {key: np.stack([scene[key] for scene in split]) for key in split[0]}
      for split in (train, test)
    ),
    validation=validation,
    split_seed=split_seed,
    label_names=NAMES,
  )


def _scene(
  rng: np.random.Generator, height: int, width: int
) -> dict[str, np.ndarray]:
  """Returns the image, mask and depths of a random scene."""
  focal = _FOCAL * height
  # Metres to the right and below the camera, at a distance of one metre.
  below, right = np.meshgrid(
    (np.arange(height) + 0.5 - height / 2) / focal,
    (np.arange(width) + 0.5 - width / 2) / focal,
    indexing='ij',
  )
  wall = rng.uniform(*_WALL)
  floor = _CAMERA / np.maximum(below, 1e-6)
  depth = np.minimum(floor, wall)
  mask = (floor >= wall).astype(np.uint8)
  color = rng.uniform(60, 200, (2, 3))[mask]
  distances = np.sort(rng.uniform(2.0, wall - 0.8, rng.integers(2, 6)))[::-1]
  for distance in distances:  # nearer things hide those behind them
    radius, kind = rng.uniform(*_RADIUS), int(rng.integers(2, len(NAMES)))
    middle = rng.uniform(-1, 1) * distance * width / (2 * focal)
    x = (right * distance - middle) / radius
    y = (below * distance - _CAMERA + radius) / radius
    inside = _outline(kind, x, y)
    mask[inside], depth[inside] = kind, distance
    light = 1.0 - 0.35 * np.clip(x, -1, 1)
    shade = rng.uniform(40, 250, 3) * light[..., None]
    color[inside] = shade[inside]
  haze = np.exp(-depth / 12.0)[..., None]
  image = haze * color + (1 - haze) * 220 + rng.normal(0, 6, color.shape)
  return {
    'image': np.clip(np.round(image), 0, 255).astype(np.uint8),
    'mask': mask,
    'depth': depth.astype(np.float32),
  }


def _outline(kind: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns where a thing is, given places in units of its radius."""
  if NAMES[kind] == 'ball':
    return x**2 + y**2 <= 1
  if NAMES[kind] == 'box':
    return np.maximum(np.abs(x), np.abs(y)) <= 1
  return (np.abs(y) <= 1) & (np.abs(x) <= (y + 1) / 2)
