"""Models as StableHLO programs, which run without this library.

A file holds what `jax.export` serialises: a program for any batch size, with
the variables inside. JAX alone can read it:
`jax.export.deserialize(open(path, 'rb').read())`.
"""

from collections.abc import Callable, Sequence
import functools
import os
import pathlib

import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import tasks, writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Augment,
  Final,
  Model,
  Network,
  Output,
  Variables,
)
from jaxdistill.networks import graph
from jaxdistill.networks.layers import convolutions
from jaxdistill.training.distributed import sharding

PLATFORMS = ('cpu', 'cuda', 'tpu')
# Two compilations of one program may differ by this fraction of the largest
# output: TOLERANCE in float32, ROUNDINGS rounding errors in narrower types.
TOLERANCE, ROUNDINGS = 1e-3, 8
# This fraction of the objects of a detector must agree. Not all do, because
# rounding may decide whether an object is suppressed.
PARTNERS = 0.98


def to_stablehlo(
  model: Model,
  image_shape: Sequence[int],
  *,
  preprocess: Augment | None = None,
  final: Final = tasks.as_they_are,
  platforms: Sequence[str] = PLATFORMS,
) -> bytes:
  """Returns a model in inference mode as one program for several platforms.

  Args:
    model: the model.
    image_shape: `(H, W, C)` of the images that the program takes.
    preprocess: what is done to the images first, for example
      `augment.standardize(mean, std)`. It becomes part of the program, which
      then takes raw images, uint8 `[B, H, W, C]`. None: the program takes the
      input of the network, float32 `[B, H, W, C]`.
    final: what is done to the outputs of the network last; see `Task.final`.
    platforms: where the program will run: 'cpu', 'cuda', 'rocm' or 'tpu'.

  Returns:
    The serialised program, from images of any batch size to the outputs of the
    network, for a classifier logits `[B, num_classes]`.
  """
  (batch_size,) = jax_export.symbolic_shape('batch')
  image = jax.ShapeDtypeStruct(
    (batch_size, *image_shape),
    jnp.float32 if preprocess is None else jnp.uint8,
  )

  @jax.jit
  def program(image: Array) -> Output:
    return outputs(model.network, preprocess, final, model.variables, image)

  with convolutions.portable():
    exported = jax_export.export(program, platforms=list(platforms))(image)
  return bytes(exported.serialize())


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def outputs(
  network: Network,
  preprocess: Augment | None,
  final: Final,
  variables: Variables,
  image: Array,
) -> Output:
  """Returns what a file gives for images in inference mode, `[B, ...]`."""
  with sharding.on_one_device():
    batch = {'image': image}
    if preprocess is not None:
      batch = preprocess(jax.random.key(0), batch)
    output = graph.apply(network, variables, batch['image'])
    return final(output, image.shape[1:3])


def save(path: str | os.PathLike[str], program: bytes) -> None:
  """Writes a program completely or not at all; see `core.writing.write`."""
  writing.write(path, program)


def load(path: str | os.PathLike[str]) -> Callable[[Array], Output]:
  """Returns the function that a file holds: images -> the network's output.

  Raises:
    UsageError: the file does not exist or does not hold a program.
  """
  try:
    program = bytearray(pathlib.Path(path).read_bytes())
    return jax.jit(jax_export.deserialize(program).call)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except Exception as error:  # damaged bytes can raise any error
    raise UsageError(
      f'{path}: expected a program of jax.export ({error})'
    ) from None


def rounding(model: Model, image: Array | jax.ShapeDtypeStruct) -> float:
  """Returns the machine epsilon of the model's narrowest feature.

  Args:
    model: the model.
    image: the input of the network, `[B, H, W, C]`; only its shape matters.
  """
  features = jax.eval_shape(
    lambda image: graph.run(*model, {'image': image})[0], image
  )
  floats = [
    x.dtype for x in features.values() if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  return max(float(jnp.finfo(dtype).eps) for dtype in floats)


def check(
  path: str | os.PathLike[str],
  file_outputs: Output,
  model_outputs: Output,
  eps: float = 0.0,
) -> None:
  """Compares the outputs of a file that was read back with the model's.

  The objects of a detector may have another order, because rounding decides
  between equal scores.

  Args:
    path: the path of the file, for the message.
    file_outputs: the outputs of the file's model or program, `[B, ...]`.
    model_outputs: the outputs of the model that was written, `[B, ...]`.
    eps: the machine epsilon of the model, see `rounding`.

  Raises:
    RuntimeError: the shapes differ, or the outputs differ by more than two
      compilations of one program do.
  """
  actual, expected = (
    [np.asarray(x, np.float64) for x in jax.tree.leaves(outputs)]
    for outputs in (file_outputs, model_outputs)
  )
  same_shapes = [x.shape for x in actual] == [x.shape for x in expected]
  limits = [_limit(x, eps) for x in expected]
  if not same_shapes or not (
    all(
      np.abs(x - y).max() <= limit
      for x, y, limit in zip(actual, expected, limits)
    )
    or _same_objects(file_outputs, model_outputs, limits)
  ):
    raise RuntimeError(
      f'{path}: its outputs differ from those of the model that was written'
    )


def _limit(expected: np.ndarray, eps: float) -> float:
  """Returns the largest allowed difference between two compilations."""
  scale = max(1.0, float(np.abs(expected).max()))
  return max(TOLERANCE, ROUNDINGS * eps) * scale


def _same_objects(
  actual: Output, expected: Output, limits: Sequence[float]
) -> bool:
  """Returns whether almost all objects of images occur in both, in any order.

  Args:
    actual: what a file gives.
    expected: outputs of the same shapes, `[B, D, ...]`. They are those of a
      detector if there are 'classes', which are -1 in rows without an object.
    limits: the largest difference of the entries of each array.
  """
  if not isinstance(expected, dict) or 'classes' not in expected:
    return False
  rows, other_rows = (
    np.concatenate(
      [
        np.asarray(x, np.float64).reshape(*x.shape[:2], -1) / limit
        for x, limit in zip(jax.tree.leaves(outputs), limits)
      ],
      axis=-1,
    )
    for outputs in (actual, expected)
  )
  are_objects, are_others = (
    np.asarray(outputs['classes']) >= 0 for outputs in (actual, expected)
  )
  without_partner = 0
  for i in range(len(rows)):
    some, others = rows[i][are_objects[i]], other_rows[i][are_others[i]]
    gaps = np.abs(some[:, None] - others[None]).max(-1, initial=0.0) > 1
    without_partner += int(gaps.all(1).sum() + gaps.all(0).sum())
  count = int(are_objects.sum() + are_others.sum())
  return without_partner <= (1 - PARTNERS) * count
