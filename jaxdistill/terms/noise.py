"""A teacher under the noise of a student, held back by masks.

Between the breakpoints of two networks; see `methods.masked_layer`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.networks import edits, staged
from jaxdistill.terms import cuts, helpers, pairs
from jaxdistill.types import (
  Array,
  Cut,
  Features,
  Model,
  Network,
  Stage,
  Variables,
)


class Parts(NamedTuple):
  """Two networks and what breakpoints make of them.

  Attributes:
    student: the network that trains.
    teacher: the network it learns from.
    groups: pairs of ranges of their stages.
    masks: a network of one stage for each breakpoint, called as the student's
      feature there.
    student_role: in the carry.
    teacher_role: in the carry.
  """

  student: Network
  teacher: Network
  groups: tuple[cuts.Group, ...]
  masks: Network
  student_role: str
  teacher_role: str

  @property
  def trained(self) -> tuple[str, ...]:
    """The student's stages up to the last breakpoint."""
    return tuple(name for group in self.groups for name in group.student)


def parts_of(
  pair: pairs.Pair, cut: Cut, roles: Mapping[str, str], mask_value: float
) -> Parts:
  """What breakpoints make of two networks.

  Args:
    pair: the networks.
    cut: the breakpoints.
    roles: 'student' and 'teacher' -> what they are called in the carry.
    mask_value: of all masks at first.

  Raises:
    UsageError: see `cuts.groups`.
  """
  groups = cuts.groups(pair, cut)
  masks = tuple(
    Stage(
      ours,
      helpers.NoiseMask(pair.teacher_shapes[theirs].shape[1:], mask_value),
      (f'teacher/{theirs}', f'noise/{ours}'),
    )
    for ours, theirs in cut
  )
  return Parts(
    pair.student,
    pair.teacher,
    groups,
    Network(masks),
    roles['student'],
    roles['teacher'],
  )


def noised_teacher(
  parts: Parts, variables: dict[str, Variables], image: Array, rng: Array
) -> Array:
  """The teacher's answer with the student's noise at every breakpoint.

    h_0 = image, h_i = F_i(h_{i-1}) + (1 - M_i) * G_i(h_{i-1})

  With masks of 1 it is the teacher's own. The noise comes from the student in
  training mode: at first its running statistics say nothing.

  Args:
    parts: the networks and what the breakpoints make of them.
    variables: by role, of the two and of 'masks'.
    image: `[B, H, W, C]`.
    rng: for stochastic stages of the student.

  Returns:
    `[B, num_classes]`.
  """
  read: tuple[Features, Features] = {'image': image}, {'image': image}
  for group in parts.groups:
    ours, theirs = group.stop
    clean, _ = staged.run(
      parts.teacher,
      variables[parts.teacher_role],
      read[1],
      only=group.teacher,
    )
    noise, _ = staged.run(
      parts.student,
      variables[parts.student_role],
      read[0],
      only=group.student,
      train=True,
      rngs={'dropout': rng},
    )
    added, _ = staged.run(
      parts.masks,
      variables['masks'],
      {f'teacher/{theirs}': clean[theirs], f'noise/{ours}': noise[ours]},
      only=(ours,),
    )
    read = (
      cuts.replaced(parts.student, noise, ours, added[ours]),
      cuts.replaced(parts.teacher, clean, theirs, added[ours]),
    )
  behind = pairs.behind(parts.teacher, parts.groups[-1].stop[1])
  features, _ = staged.run(
    parts.teacher, variables[parts.teacher_role], read[1], only=behind
  )
  return features[staged.output(parts.teacher)]


def noised_network(parts: Parts) -> Network:
  """The teacher under noise as one stage, 'model', to be evaluated.

  Its parameters are the variables that `noised_teacher` takes.
  """

  def apply(variables, image, train, rngs):
    del train, rngs
    tree = variables['params']
    return noised_teacher(parts, tree, image, jax.random.key(0)), {}

  return staged.opaque(lambda rng, image: {}, apply)


def new_masks(parts: Parts, rng: Array) -> Model:
  """The masks as they are at first."""
  features = {
    name: jax.ShapeDtypeStruct((1, *stage.module.shape), jnp.float32)
    for stage in parts.masks.stages
    for name in stage.inputs
  }
  return Model(parts.masks, staged.init(parts.masks, rng, features))


def masks_of(variables: Variables) -> dict[str, Array]:
  """The masks by breakpoint, from the variables of the role 'masks'."""
  return {k: tree['mask'] for k, tree in variables['params'].items()}


def mask_summary(mask: Array) -> dict[str, Any]:
  """What is reported of a mask `[..., C]`, as JSON.

  Returns:
    'above_half': the share of its entries above 0.5; 'mean'; 'channels': the
    mean of each channel `[C]`; 'pixels': the mean over channels `[...]`.
  """
  rounded = np.round(np.asarray(mask, np.float64), 4)
  return {
    'above_half': float((rounded > 0.5).mean()),
    'mean': float(rounded.mean()),
    'channels': rounded.reshape(-1, rounded.shape[-1]).mean(0).tolist(),
    'pixels': rounded.mean(-1).tolist(),
  }


def with_head(
  parts: Parts, variables: Variables, source: Variables
) -> Variables:
  """With the teacher's stages behind the last breakpoint that are alike.

  Where one network has more of them, those pair that are nearest to the end, up
  to the first that differ.
  """
  ours, theirs = (
    network.stages[len(network.stages) - len(pairs.behind(network, end)) :]
    for network, end in zip(parts[:2], parts.groups[-1].stop)
  )
  found = list(zip(reversed(ours), reversed(theirs)))
  if len(ours) != len(theirs):
    alike = [s.module == t.module for s, t in found]
    found = found[: [*alike, False].index(False)]
  names = {t.name: s.name for s, t in found}
  # The teacher's head, its stages called as the student's.
  head = Network(tuple(t._replace(name=s.name) for s, t in found))
  renamed = {
    collection: {names[k]: v for k, v in tree.items() if k in names}
    for collection, tree in source.items()
  }
  return edits.inherit(Network(ours), variables, Model(head, renamed))
