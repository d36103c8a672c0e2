"""Edits of architectures: blocks deleted, inserted and replaced.

  student = edits.delete(teacher, ('group2.block2', 'group3.block2'))

An edit keeps the shapes of the answer, and of the features and variables of
every stage that stays: the others cannot tell.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdistill.networks import staged
from jaxdistill.types import Model, Network, Stage, UsageError, Variables

IMAGE_SHAPE = (224, 224, 3)


def delete(
  network: Network,
  names: Sequence[str],
  *,
  image_shape: Sequence[int] = IMAGE_SHAPE,
) -> Network:
  """A network without some of its stages.

  Args:
    network: the network.
    names: the stages, in any order.
    image_shape: (H, W, C) of the images for which shapes are checked.

  Raises:
    UsageError: a name is no stage, stands twice or is read by name later on,
      or what stays would have another shape.
  """
  if isinstance(names, str):
    raise UsageError(f'delete: wanted a list of stages, got {names!r}')
  edited = network
  for name in names:
    edited = _splice(edited, name, name, Network(()))
  return _checked(f'delete {", ".join(names)}', network, edited, image_shape)


def insert(
  network: Network,
  after: str,
  part: Network,
  *,
  image_shape: Sequence[int] = IMAGE_SHAPE,
) -> Network:
  """A network with more stages behind one of its own.

  Args:
    network: the network.
    after: the stage.
    part: what follows it. A name that is taken gets a number appended; one in
      the group of `after` ('group2.extra') makes it that group's end.
    image_shape: see `delete`.

  Raises:
    UsageError: there is no such stage, or what follows would have another
      shape.
  """
  staged.check_stages(network, (after,))
  at = staged.stage_names(network).index(after) + 1
  place = Stage('(here)', None)  # `splice` replaces, and never runs it
  marked = Network((*network.stages[:at], place, *network.stages[at:]))
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
  """A network with other stages in place of a range of its own.

  Args:
    network: the network.
    start: the first stage of the range.
    stop: the last one, at or after `start`.
    part: what comes in their place; names as in `insert`.
    image_shape: see `delete`.

  Raises:
    UsageError: there is no such range, a later stage reads one of its stages
      by name, or what follows would have another shape.
  """
  edited = _splice(network, start, stop, part)
  return _checked(f'replace {start} to {stop}', network, edited, image_shape)


def deletable(
  network: Network, *, image_shape: Sequence[int] = IMAGE_SHAPE
) -> tuple[str, ...]:
  """The blocks that `delete` can take away: maps that keep their input's shape.

  Args:
    network: the network.
    image_shape: see `delete`.
  """
  shapes = staged.shapes(network, _image(image_shape))
  names = staged.stage_names(network)
  found = []
  for before, stage in zip(('image', *names), network.stages):
    shape = shapes[stage.name].shape
    if len(shape) != 4 or stage.inputs or shapes[before].shape != shape:
      continue
    try:
      _splice(network, stage.name, stage.name, Network(()))
    except UsageError:  # is read by name
      continue
    found.append(stage.name)
  return tuple(found)


def inherit(network: Network, variables: Variables, source: Model) -> Variables:
  """Variables with those of another model where its stages survive.

  Args:
    network: the edited network.
    variables: of it, such as initial ones.
    source: what it was made from.

  Returns:
    `variables`; but a stage that `source` has under the same name, with an
    equal module and variables of equal shapes, has those of `source`.
  """
  modules = {stage.name: stage.module for stage in source.network.stages}
  surviving = [
    stage.name
    for stage in network.stages
    if modules.get(stage.name) == stage.module
    and _shapes(variables, stage.name) == _shapes(source.variables, stage.name)
  ]
  kept = staged.select(source.variables, surviving)
  return staged.merge(variables, {k: tree for k, tree in kept.items() if tree})


def _splice(network: Network, start: str, stop: str, part: Network) -> Network:
  return staged.splice(Model(network, {}), start, stop, Model(part, {})).network


def _checked(
  edit: str, network: Network, edited: Network, image_shape: Sequence[int]
) -> Network:
  """The edited network.

  Raises:
    UsageError: the answer, or something of a stage that stays, has another
      shape.
  """
  if not edited.stages:
    raise UsageError(f'{edit}: no stage is left')
  image = _image(image_shape)
  before = staged.shapes(network, image)
  try:
    after = staged.shapes(edited, image)
  except UsageError as error:
    raise UsageError(f'{edit}: {error}') from None
  except (TypeError, ValueError, ArithmeticError) as error:
    reason = str(error).partition('\n')[0]
    raise UsageError(f'{edit}: the rest does not run ({reason})') from error
  answers = (staged.output(edited), staged.output(network))
  for ours, theirs in (*((k, k) for k in after if k in before), answers):
    if after[ours].shape != before[theirs].shape:
      raise UsageError(
        f'{edit}: feature {ours!r} would be {after[ours].shape[1:]} instead of '
        f'{before[theirs].shape[1:]} for images {tuple(image_shape)}'
      )
  now, then = (staged.variable_shapes(n, image) for n in (edited, network))
  for stage in edited.stages:
    name = stage.name
    if stage in network.stages and _shapes(now, name) != _shapes(then, name):
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
