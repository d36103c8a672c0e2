"""What an exported file is made from, and functions of raw images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters import partial_eval
import jax.numpy as jnp

from jaxdistill.core import tasks
from jaxdistill.core.types import Array, Augment, Final, Model
from jaxdistill.networks import graph
from jaxdistill.networks.layers import plain
from jaxdistill.study import reading
from jaxdistill.study.plans import Plan

# Raw images, uint8 `[B, H, W, C]` -> the network's outputs, `[B, ...]`.
Run = Callable[[Any], Any]
OUTPUT = 'output'


class Source(NamedTuple):
  """A model with everything that a file of it needs.

  Attributes:
    model: the model.
    preprocess: what evaluation does to raw images.
    image_shape: the shape `(H, W, C)` of a raw image.
    about: what a user has to know about the data and the outputs, as JSON:
      'label_names', 'class_scores', 'mean' and 'std'; 'image_shape'; the
      'network_size', the height and width to which images are cropped; 'task',
      a section of a config; and how image files are read, see `reading.about`.
    final: what is done to the outputs of the network last; see `Task.final`.
  """

  model: Model
  preprocess: Augment
  image_shape: tuple[int, ...]
  about: dict[str, Any]
  final: Final = tasks.as_they_are


def source(plan: Plan, model: Model) -> Source:
  """Returns what a file of one of the plan's models is made from."""
  image_shape = tuple(plan.dataset.splits['test']['image'].shape[1:])
  resolved = plan.rows[0].resolved
  about = {
    **plan.about_data,
    'label_names': list(plan.class_names),
    'image_shape': list(image_shape),
    'network_size': list(plan.image.shape[1:3]),
    'task': resolved['task'],
    **reading.about(resolved['data'], plan.task, image_shape),
  }
  return Source(model, plan.preprocess, image_shape, about, plan.task.final)


class Program(NamedTuple):
  """A traced function for the converters of other runtimes.

  Attributes:
    function: raw images -> the outputs, as a tuple.
    image: the shape and the type of the images.
    outputs: the names of the outputs; a single one is called `OUTPUT`.
  """

  function: Callable[[Array], tuple[Array, ...]]
  image: jax.ShapeDtypeStruct
  outputs: tuple[str, ...]


def program(source: Source, batch_size: Any) -> Program:
  """Returns a function that standardises images and runs the model.

  It contains ordinary convolutions only, and it is traced already, because a
  converter may replace functions of Flax while it traces.

  Args:
    source: the model.
    batch_size: a number, or a symbol of `jax.export`.
  """
  image = jax.ShapeDtypeStruct((batch_size, *source.image_shape), jnp.uint8)

  def outputs(image: Array) -> dict[str, Array]:
    batch = source.preprocess(jax.random.key(0), {'image': image})
    output = graph.apply(*source.model, batch['image'])
    output = source.final(output, source.image_shape[:2])
    return output if isinstance(output, dict) else {OUTPUT: output}

  with plain.convolutions():
    closed, shapes = jax.make_jaxpr(outputs, return_shape=True)(image)
  # Nothing needs the random key, and converters do not know it.
  needed = [True] * len(shapes)
  jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, needed, instantiate=True)
  function = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, closed.consts))
  # JAX flattens a dict in the order of its sorted names.
  names = tuple(sorted(shapes))
  return Program(lambda image: tuple(function(image)), image, names)
