"""Edits of architectures: blocks deleted, inserted and replaced.

  student = edits.delete(teacher, ('group2.block2', 'group3.block2'))
  student = edits.insert(
    teacher, 'group2.block1', edits.stages(teacher, 'group2.block2')
  )

An edit keeps the shape of the network's output, and the shapes of the features
and variables of every stage that remains, so these stages are unaffected.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage, Variables
from jaxdistill.networks import graph

IMAGE_SHAPE = (224, 224, 3)


def delete(
  network: Network,
  names: Sequence[str],
  *,
  image_shape: Sequence[int] = IMAGE_SHAPE,
) -> Network:
  """Returns a network without some of its stages.

  Args:
    network: the network.
    names: the stages to delete, in any order.
    image_shape: (H, W, C) of the images with which shapes are checked.

  Raises:
    UsageError: a name is not a stage, is given twice, or is read by name by a
      later stage; or the shape of something that remains would change.
  """
  if isinstance(names, str):
    raise UsageError(f'names: expected a list of stages, got {names!r}')
  edited = network
  for name in names:
    edited = _splice(edited, name, name, Network(()))
  return _checked(f'delete {", ".join(names)}', network, edited, image_shape)


def stages(
  network: Network,
  start: str,
  stop: str | None = None,
  *,
  names: Sequence[str] | None = None,
) -> Network:
  """Returns some of a network's stages, for `insert` and `replace`.

  Args:
    network: the network.
    start: the first stage.
    stop: the last stage, at or after `start`; None means `start`.
    names: the new names of the stages; None keeps the names. With a new name, a
      stage that replaces one of the same kind does not `inherit` its variables.

  Raises:
    UsageError: there is no such stage, `stop` comes before `start`, or the
      number of names is not that of the stages.
  """
  stop = start if stop is None else stop
  graph.check_stages(network, (start, stop))
  all_names = graph.stage_names(network)
  first, last = all_names.index(start), all_names.index(stop)
  if last < first:
    raise UsageError(
      f'stop: expected {start!r} or a stage after it, got {stop!r}'
    )
  old_names = all_names[first : last + 1]
  new_names = dict(zip(old_names, old_names))
  if names is not None:
    names = checks.length('names', names, len(old_names), 'stages')
    new_names = dict(zip(old_names, names))
  return Network(
    tuple(
      stage._replace(
        name=new_names[stage.name],
        inputs=tuple(new_names.get(name, name) for name in stage.inputs),
      )
      for stage in network.stages[first : last + 1]
    )
  )


def insert(
  network: Network,
  after: str,
  part: Network,
  *,
  image_shape: Sequence[int] = IMAGE_SHAPE,
) -> Network:
  """Returns a network with more stages after one of its own.

  Args:
    network: the network.
    after: the stage.
    part: the stages to insert after it. If a name is taken, a number is
      appended. A name in the group of `after` ('group2.extra') extends that
      group.
    image_shape: see `delete`.

  Raises:
    UsageError: there is no such stage, or the shape of something that remains
      would change.
  """
  graph.check_stages(network, (after,))
  at = graph.stage_names(network).index(after) + 1
  place = Stage('(here)', None)  # `splice` replaces it
  marked = network._replace(
    stages=(*network.stages[:at], place, *network.stages[at:])
  )
  edited = _splice(marked, place.name, place.name, part)
  return _checked(f'insert after {after}', network, edited, image_shape)


def replace(
  network: Network,
  start: str,
  stop: str,
  part: Network,
  *,
  image_shape: Sequence[int] = IMAGE_SHAPE,
) -> Network:
  """Returns a network with a range of its stages replaced.

  Args:
    network: the network.
    start: the first stage of the range.
    stop: the last one, at or after `start`.
    part: the stages that replace them; see `insert` for their names.
    image_shape: see `delete`.

  Raises:
    UsageError: there is no such range, a later stage reads one of its stages by
      name, or the shape of something that remains would change.
  """
  edited = _splice(network, start, stop, part)
  return _checked(f'replace {start} to {stop}', network, edited, image_shape)


def deletable(
  network: Network, *, image_shape: Sequence[int] = IMAGE_SHAPE
) -> tuple[str, ...]:
  """Returns the blocks that `delete` can remove, as they keep their input's
  shape.

  Args:
    network: the network.
    image_shape: see `delete`.
  """
  shapes = graph.shapes(network, _image(image_shape))
  names = graph.stage_names(network)
  blocks = []
  for before, stage in zip(('image', *names), network.stages):
    shape = shapes[stage.name].shape
    if len(shape) != 4 or stage.inputs or shapes[before].shape != shape:
      continue
    try:
      _splice(network, stage.name, stage.name, Network(()))
    except UsageError:  # a later stage reads it by name
      continue
    blocks.append(stage.name)
  return tuple(blocks)


def inherit(network: Network, variables: Variables, source: Model) -> Variables:
  """Returns variables in which surviving stages have those of another model.

  Args:
    network: the edited network.
    variables: its variables, such as initial ones.
    source: the model from which it was made.

  Returns:
    `variables`, except that a stage has the variables of `source` if `source`
    has a stage of the same name with an equal module and variables of the same
    shapes, which reads images in the same way.
  """
  parts = {s.name: (s.module, s.image) for s in source.network.stages}
  surviving = [
    stage.name
    for stage in network.stages
    if parts.get(stage.name) == (stage.module, stage.image)
    and _shapes(variables, stage.name) == _shapes(source.variables, stage.name)
  ]
  kept = graph.select(source.variables, surviving)
  return graph.merge(variables, {k: tree for k, tree in kept.items() if tree})


def _splice(network: Network, start: str, stop: str, part: Network) -> Network:
  return graph.splice(Model(network, {}), start, stop, Model(part, {})).network


def _checked(
  edit: str, network: Network, edited: Network, image_shape: Sequence[int]
) -> Network:
  """Returns the edited network.

  Raises:
    UsageError: the shape of the output, or of a feature or variable of a stage
      that remains, has changed.
  """
  if not edited.stages:
    raise UsageError(f'{edit}: no stage is left')
  image = _image(image_shape)
  before = graph.shapes(network, image)
  try:
    after = graph.shapes(edited, image)
  except UsageError as error:
    raise UsageError(f'{edit}: {error}') from None
  except (TypeError, ValueError, ArithmeticError) as error:
    reason = str(error).partition('\n')[0]
    raise UsageError(
      f'{edit}: the edited network does not run ({reason})'
    ) from error
  outputs = (graph.main_output(edited), graph.main_output(network))
  for feature, earlier in (*((k, k) for k in after if k in before), outputs):
    if after[feature].shape != before[earlier].shape:
      raise UsageError(
        f'{edit}: feature {feature!r} would be {after[feature].shape[1:]} '
        f'instead of {before[earlier].shape[1:]} for images '
        f'{tuple(image_shape)}'
      )
  new, old = (graph.variable_shapes(n, image) for n in (edited, network))
  for stage in edited.stages:
    name = stage.name
    if stage in network.stages and _shapes(new, name) != _shapes(old, name):
      raise UsageError(
        f'{edit}: stage {name!r} would read another number of channels'
      )
  return edited


def _image(image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
  return {'image': jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)}


def _shapes(variables: Variables, stage: str) -> dict[str, object]:
  return {
    collection: jax.tree.map(jnp.shape, tree[stage])
    for collection, tree in variables.items()
    if stage in tree
  }
