"""Trained networks as programs, for models that no description can rebuild.

A program is what `jax.export` serialises. It computes all features of a network
from variables and images, of any batch size, and only in inference mode: it can
be a teacher, not a student. A program is code; take it only from people whose
programs you would run.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
from typing import Any
import zlib

from flax import traverse_util
import jax
from jax import export as jax_export
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Model, Network, Variables
from jaxdistill.networks import graph
from jaxdistill.networks.adapters import functions
from jaxdistill.networks.layers import convolutions

_STAGE = 'model'  # of a network that was made from functions
# What a program says about the places of its code.
_PLACES = re.compile(r'^#loc.*\n| loc\((?:#\w+|unknown|"[^"]*")\)', re.M)


def to_program(
  model: Model, image_shape: Sequence[int]
) -> tuple[bytes, Variables]:
  """Returns a model as (the program, the variables that it takes).

  Args:
    model: the model.
    image_shape: `(H, W, C)` of the images that it takes, which are float32.

  Raises:
    UsageError: the model does not run for any batch size.
  """
  network = model.network
  (batch_size,) = jax_export.symbolic_shape('batch')
  image = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
  last = graph.main_output(network)
  # Files do not keep collections that are empty.
  variables = traverse_util.unflatten_dict(
    traverse_util.flatten_dict(model.variables)
  )

  @jax.jit
  def features(variables: Variables, image: Array) -> dict[str, Array]:
    every = graph.run(network, variables, {'image': image})[0]
    named = {k: v for k, v in every.items() if k not in (last, 'image')}
    return {'logits': every[last], **named}

  try:
    with convolutions.portable():
      exported = jax_export.export(features)(variables, image)
  except Exception as error:  # whatever a user's module raises
    raise UsageError(
      'teacher: expected a model that takes any number of images (write '
      'x.shape[0] in place of len(x), and no shape of the batch as a number): '
      f'{checks.reason(error)[:200]}'
    ) from None
  nested = {name: {_STAGE: tree} for name, tree in variables.items()}
  return bytes(exported.serialize()), nested


def checksum(program: bytes) -> int:
  """Returns a checksum of what a program computes.

  It does not depend on the names and lines of the files that hold its code.

  Args:
    program: the bytes of `to_program`.
  """
  text = jax_export.deserialize(bytearray(program)).mlir_module()
  return zlib.crc32(_PLACES.sub('', text).encode())


def program(path: str, *, num_classes: int | None = None) -> Network:
  """Returns the network of one stage, 'model', that a program computes.

  Args:
    path: a file with the bytes of `to_program`.
    num_classes: not used; the program has its own.

  Raises:
    UsageError: the file does not exist or does not hold a program.
  """
  del num_classes
  file = pathlib.Path(os.path.expanduser(path))
  try:
    exported = jax_export.deserialize(bytearray(file.read_bytes()))
    (shapes, _), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
  except FileNotFoundError:
    raise UsageError(f'path: no file {path!r}') from None
  except Exception as error:  # damaged bytes can raise any error
    raise UsageError(
      f'path: expected a program in {path!r} ({checks.reason(error)[:200]})'
    ) from None

  def initialize(rng: Array, image: Array) -> Variables:
    del rng, image
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(shapes))

  def run(
    variables: Variables,
    image: Array,
    train: bool,
    rngs: Mapping[str, Array] | None,
  ) -> tuple[Any, Variables]:
    del rngs
    if train:
      raise UsageError(
        'a network of a program cannot be trained; it can be a teacher'
      )
    return exported.call(variables, image), {}

  return functions.from_functions(initialize, run)
