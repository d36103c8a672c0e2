"""The mean and the standard deviation of each channel of images."""

from collections.abc import Sequence

import numpy as np

from jaxdistill.core import checks
from jaxdistill.data.sources.images import LazyImages

# The number of images from which the statistics of lazy images are computed.
SAMPLE = 1024


def statistics(
  image: np.ndarray | LazyImages,
) -> tuple[list[float], list[float]]:
  """Returns (mean, standard deviation) per channel.

  The sums are exact, and computed from 256 images at a time.

  Args:
    image: uint8 `[N, H, W, C]`; of a lazy column, `SAMPLE` images are read.
  """
  rows = np.arange(len(image))
  if isinstance(image, LazyImages) and len(image) > SAMPLE:
    rows = np.linspace(0, len(image) - 1, SAMPLE).astype(int)
  total = squares = np.zeros(image.shape[-1], np.int64)
  for start in range(0, len(rows), 256):
    part = image[rows[start : start + 256]].astype(np.int64)
    total = total + part.sum((0, 1, 2))
    squares = squares + np.square(part).sum((0, 1, 2))
  count = len(rows) * image.shape[1] * image.shape[2]
  mean = total / count
  variance = np.maximum(squares / count - mean**2, 1e-6)
  return mean.tolist(), np.sqrt(variance).tolist()


def check(
  name: str, values: Sequence[float], channels: int, *, place: str = 'data.'
) -> None:
  """Checks that there is one valid number per channel.

  Args:
    name: 'mean' or 'std'.
    values: the numbers.
    channels: the number of channels.
    place: where the numbers are; the message begins with it.

  Raises:
    UsageError: the number of entries is another one, or a number is not valid.
  """
  key = f'{place}{name}'
  checks.length(key, values, channels, 'channels')
  for value in values:
    checks.number(key, value, above=0 if name == 'std' else None)
