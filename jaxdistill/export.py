"""A model as a StableHLO program, which runs without this library.

The file is what `jax.export` serialises: any batch size, the variables inside.
Who has only JAX reads it by `jax.export.deserialize(open(path, 'rb').read())`.
"""

from collections.abc import Callable, Sequence
import functools
import os
import pathlib

import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np

from jaxdistill.networks import convolutions, staged
from jaxdistill.types import (
  Array,
  Augment,
  Model,
  Network,
  UsageError,
  Variables,
)

PLATFORMS = ('cpu', 'cuda', 'tpu')
# Of the largest logit: what two compilations of one program may differ by, in
# float32, and so many roundings in narrower types.
TOLERANCE, ROUNDINGS = 1e-3, 8


def to_stablehlo(
  model: Model,
  image_shape: Sequence[int],
  *,
  preprocess: Augment | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> bytes:
  """A model in inference mode as one program for several platforms.

  Args:
    model: the model.
    image_shape: `(H, W, C)` of the images that the program takes.
    preprocess: what the images go through first, such as `data.augment`'s
      `standardize(mean, std)`; it becomes part of the program, which then takes
      raw images, uint8 `[B, H, W, C]`. None: the program takes the network's
      own input, float32 `[B, H, W, C]`.
    platforms: where it will run, of 'cpu', 'cuda', 'rocm' and 'tpu'.

  Returns:
    The serialised program: images of any batch size -> the network's answer,
    `[B, num_classes]` logits of a classifier.
  """
  (batch_size,) = jax_export.symbolic_shape('batch')
  image = jax.ShapeDtypeStruct(
    (batch_size, *image_shape),
    jnp.float32 if preprocess is None else jnp.uint8,
  )

  @jax.jit
  def program(image: Array) -> Array:
    return answers(model.network, preprocess, model.variables, image)

  with convolutions.portable():
    exported = jax_export.export(program, platforms=list(platforms))(image)
  return bytes(exported.serialize())


@functools.partial(jax.jit, static_argnums=(0, 1))
def answers(
  network: Network,
  preprocess: Augment | None,
  variables: Variables,
  image: Array,
) -> Array:
  """The network's answers to images in inference mode, `[B, ...]`."""
  batch = {'image': image}
  if preprocess is not None:
    batch = preprocess(jax.random.key(0), batch)
  return staged.apply(network, variables, batch['image'])


def save(path: str | os.PathLike, program: bytes) -> None:
  """Writes a program whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(program)
  os.replace(partial, path)


def load(path: str | os.PathLike) -> Callable[[Array], Array]:
  """The function of a program's file: images -> the network's answer.

  Raises:
    UsageError: the file is missing or holds no program.
  """
  try:
    program = bytearray(pathlib.Path(path).read_bytes())
    return jax.jit(jax_export.deserialize(program).call)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except Exception as error:  # the reader of damaged bytes raises anything
    raise UsageError(f'{path}: no program of jax.export ({error})') from None


def rounding(model: Model, image: Array | jax.ShapeDtypeStruct) -> float:
  """The relative step between numbers in the model's narrowest feature.

  Args:
    model: the model.
    image: as its network takes it, `[B, H, W, C]`; only its shape counts.
  """
  features = jax.eval_shape(
    lambda image: staged.run(*model, {'image': image})[0], image
  )
  floats = [
    x.dtype for x in features.values() if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  return max(float(jnp.finfo(dtype).eps) for dtype in floats)


def check(
  path: str | os.PathLike,
  found: Array,
  expected: Array,
  eps: float = 0.0,
) -> None:
  """Compares the answers of a file that was read again with the model's.

  Args:
    path: of the file.
    found: its answers.
    expected: the model's.
    eps: of the model, see `rounding`.

  Raises:
    RuntimeError: they differ by more than compiling twice explains.
  """
  ours, theirs = (np.asarray(x, np.float64) for x in (found, expected))
  limit = max(TOLERANCE, ROUNDINGS * eps) * max(
    1.0, float(np.abs(theirs).max())
  )
  if ours.shape != theirs.shape or not np.abs(ours - theirs).max() <= limit:
    raise RuntimeError(
      f'{path}: its answers are not those of the model that was written'
    )
