"""Features as maps: what counts as a map, and how it becomes one."""

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array

# (H, W, C)
MapShape = tuple[int, int, int]


def map_shape(shape: tuple[int, ...]) -> MapShape:
  """Returns (H, W, C) of the map that `as_map` makes of a feature.

  A vector `[B, C]` becomes a map of one pixel. Tokens `[B, N, C]` become a
  square if N - 1 is a square, where the class token is left out, or if N is
  one, or if N - 5 is one, where four registers are left out too. Otherwise they
  become a column.

  Args:
    shape: the shape of the feature, `[B, ...]`.

  Raises:
    UsageError: it is neither a map nor tokens nor a vector.
  """
  if len(shape) == 4:
    return shape[1], shape[2], shape[3]
  if len(shape) == 2:
    return 1, 1, shape[1]
  if len(shape) != 3:
    raise UsageError(
      'expected a map [B, H, W, C], tokens [B, N, C] or a vector [B, C], got '
      f'the shape {shape}'
    )
  for patches in (shape[1] - 1, shape[1], shape[1] - 5):
    side = round(max(patches, 0) ** 0.5)
    if patches and side**2 == patches:
      return side, side, shape[2]
  return shape[1], 1, shape[2]


def as_map(x: Array) -> Array:
  """Turns a feature into a map `[B, H, W, C]`; see `map_shape`.

  Args:
    x: a map `[B, H, W, C]`, tokens `[B, N, C]` or a vector `[B, C]`.
  """
  if x.ndim == 4:
    return x
  height, width, channels = map_shape(x.shape)
  tokens = x.reshape(len(x), -1, channels)
  return tokens[:, -height * width :].reshape(len(x), height, width, channels)
