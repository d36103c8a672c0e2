"""A teacher whose features carry the student's noise, reduced by masks.

The noise is added at the breakpoints between the groups of both networks; see
`method.masked_layer`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import objectives
from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  FeaturePairs,
  Features,
  Model,
  Network,
  Stage,
  Variables,
)
from jaxdistill.networks import adapters, description, graph
from jaxdistill.networks.surgery import edits
from jaxdistill.objectives import cuts, pairs


@description.register
class NoiseMask(nn.Module):
  """Adds noise to a teacher's feature where a mask lets it pass.

    teacher + (1 - mask) * noise

  Equation (4) of Masked Layer Distillation. No gradient flows to the noise.

  Attributes:
    shape: the shape of one image's feature, which is that of the mask.
    value: the initial value of the whole mask; 1 lets no noise pass.
  """

  shape: tuple[int, ...]
  value: float = 0.5

  @nn.compact
  def __call__(self, teacher: Array, noise: Array, train: bool) -> Array:
    del train
    mask = self.param('mask', nn.initializers.constant(self.value), self.shape)
    noise = jax.lax.stop_gradient(noise)
    return (teacher + (1 - mask)[None] * noise).astype(teacher.dtype)


class Parts(NamedTuple):
  """Two networks, divided into groups by breakpoints.

  Attributes:
    student: the network that trains.
    teacher: the network that it learns from.
    groups: the student's and the teacher's stages between two breakpoints.
    masks: a network with one stage for each breakpoint, named like the
      student's feature there.
    student_role: the role of the student in the carry.
    teacher_role: the role of the teacher in the carry.
  """

  student: Network
  teacher: Network
  groups: tuple[cuts.Segment, ...]
  masks: Network
  student_role: str
  teacher_role: str

  @property
  def trained(self) -> tuple[str, ...]:
    """Names the student's stages up to the last breakpoint."""
    return tuple(name for group in self.groups for name in group.student)


def parts_of(
  pair: objectives.Pair,
  cut: FeaturePairs,
  roles: Mapping[str, str],
  mask_value: float,
) -> Parts:
  """Divides two networks at breakpoints.

  Args:
    pair: the networks.
    cut: the breakpoints, pairs (student feature, teacher feature).
    roles: 'student' and 'teacher' -> their roles in the carry.
    mask_value: the initial value of all masks.

  Raises:
    UsageError: see `cuts.segments`.
  """
  groups = cuts.segments(pair, cut)
  masks = tuple(
    Stage(
      student_feature,
      NoiseMask(pair.teacher_shapes[teacher_feature].shape[1:], mask_value),
      (f'teacher/{teacher_feature}', f'noise/{student_feature}'),
    )
    for student_feature, teacher_feature in cut
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
  """Computes the teacher's outputs with the student's noise added.

    h_0 = image, h_i = F_i(h_{i-1}) + (1 - M_i) * G_i(h_{i-1})

  F_i are the teacher's groups and G_i the student's. With masks of 1 the result
  is that of the teacher itself. The student is in training mode, because its
  running statistics are meaningless before it is trained.

  Args:
    parts: the networks and their groups.
    variables: role -> variables, of both networks and of 'masks'.
    image: `[B, H, W, C]`.
    rng: a random key for stochastic stages of the student.

  Returns:
    The outputs, `[B, num_classes]`.
  """
  student_input: Features = {'image': image}
  teacher_input: Features = {'image': image}
  for group in parts.groups:
    student_feature, teacher_feature = group.stop
    clean, _ = graph.run(
      parts.teacher,
      variables[parts.teacher_role],
      teacher_input,
      only=group.teacher,
    )
    noise, _ = graph.run(
      parts.student,
      variables[parts.student_role],
      student_input,
      only=group.student,
      train=True,
      rngs={'dropout': random.step_key(rng, 'dropout')},
    )
    mixed, _ = graph.run(
      parts.masks,
      variables['masks'],
      {
        f'teacher/{teacher_feature}': clean[teacher_feature],
        f'noise/{student_feature}': noise[student_feature],
      },
      only=(student_feature,),
    )
    value = mixed[student_feature]
    student_input = cuts.replace_output(
      parts.student, noise, student_feature, value
    )
    teacher_input = cuts.replace_output(
      parts.teacher, clean, teacher_feature, value
    )
  head = pairs.stages_after(parts.teacher, parts.groups[-1].stop[1])
  features, _ = graph.run(
    parts.teacher, variables[parts.teacher_role], teacher_input, only=head
  )
  return features[graph.output(parts.teacher)]


def noised_network(parts: Parts) -> Network:
  """Returns the teacher under noise as a network that can be evaluated.

  It has one stage, 'model', whose parameters are the variables that
  `noised_teacher` takes.

  Args:
    parts: the networks and their groups.
  """

  def apply(variables, image, train, rngs):
    del train, rngs
    tree = variables['params']
    return noised_teacher(parts, tree, image, jax.random.key(0)), {}

  return adapters.from_functions(lambda rng, image: {}, apply)


def new_masks(parts: Parts, rng: Array) -> Model:
  """Returns new masks.

  Args:
    parts: the networks and their groups.
    rng: a random key.
  """
  features = {
    name: jax.ShapeDtypeStruct((1, *stage.module.shape), jnp.float32)
    for stage in parts.masks.stages
    for name in stage.inputs
  }
  return Model(parts.masks, graph.init(parts.masks, rng, features))


def masks_of(variables: Variables) -> dict[str, Array]:
  """Returns the masks by breakpoint.

  Args:
    variables: the variables of the role 'masks'.
  """
  return {k: tree['mask'] for k, tree in variables['params'].items()}


def mask_summary(mask: Array) -> dict[str, Any]:
  """Summarises a mask as JSON.

  Args:
    mask: `[..., C]`.

  Returns:
    'above_half': the fraction of its entries above 0.5; 'mean': the mean of all
    entries; 'channels': the mean of each channel, `[C]`; 'pixels': the mean
    over the channels, `[...]`.
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
  """Copies the teacher's head into the student's variables.

  The head is everything after the last breakpoint. If the two heads have
  different numbers of stages, stages are paired from the end, up to the first
  pair whose modules differ.

  Args:
    parts: the networks and their groups.
    variables: the variables of the student.
    source: the variables of the teacher.

  Returns:
    The variables of the student.
  """
  student_head, teacher_head = (
    network.stages[
      len(network.stages) - len(pairs.stages_after(network, end)) :
    ]
    for network, end in zip(parts[:2], parts.groups[-1].stop)
  )
  stage_pairs = list(zip(reversed(student_head), reversed(teacher_head)))
  if len(student_head) != len(teacher_head):
    equal = [s.module == t.module for s, t in stage_pairs]
    stage_pairs = stage_pairs[: [*equal, False].index(False)]
  names = {t.name: s.name for s, t in stage_pairs}
  # The teacher's head, with its stages named like the student's.
  head = Network(tuple(t._replace(name=s.name) for s, t in stage_pairs))
  renamed = {
    collection: {names[k]: v for k, v in tree.items() if k in names}
    for collection, tree in source.items()
  }
  return edits.inherit(Network(student_head), variables, Model(head, renamed))
