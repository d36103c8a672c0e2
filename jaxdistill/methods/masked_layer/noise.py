"""A teacher whose features carry the student's noise, reduced by masks.

The noise is added at the breakpoints between the groups of both networks; see
`method.masked_layer`.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import (
  Array,
  Features,
  Model,
  Network,
  Output,
  Variables,
)
from jaxdistill.methods.masked_layer.parts import Parts
from jaxdistill.networks import adapters, graph
from jaxdistill.objectives import cuts, pairs

# What the student's groups read while they make noise, see `noised_teacher`.
SOURCES = ('noised', 'clean', 'student')


def noised_teacher(
  parts: Parts,
  variables: dict[str, Variables],
  image: Array,
  rng: Array,
  *,
  source: str = 'noised',
  at: Collection[str] | None = None,
) -> Output:
  """Computes the teacher's outputs with the student's noise added.

    h_0 = image, h_i = F_i(h_{i-1}) + (1 - M_i) * G_i(x_{i-1})

  F_i are the teacher's groups and G_i the student's. With masks of 1 the result
  is that of the teacher itself. The student is in training mode, because its
  running statistics are meaningless before it is trained.

  Args:
    parts: the networks and their groups.
    variables: role -> variables, of both networks and of 'masks'.
    image: `[B, H, W, C]`.
    rng: a random key for stochastic stages of the student.
    source: the input x of the student's groups: 'noised' is h, 'clean' the
      teacher's feature without noise, and 'student' the output of the student's
      own group before.
    at: the student features of the breakpoints where noise is added; None means
      all of them.

  Returns:
    The outputs, for a classifier `[B, num_classes]`.
  """
  teacher = parts.teacher, variables[parts.teacher_role]
  noised: Features = {'image': image}
  clean, read = noised, noised
  for group in parts.groups:
    name, teacher_name = group.stop
    student_features, _ = parts.run_student(
      variables[parts.student_role], read, group, train=group.student, rng=rng
    )
    noised, _ = graph.run(*teacher, noised, only=group.teacher)
    if at is None or name in at:
      value = _masked(
        parts, variables['masks'], group.stop, noised, student_features
      )
      noised = cuts.replace_output(parts.teacher, noised, teacher_name, value)
    if source == 'clean':
      clean, _ = graph.run(*teacher, clean, only=group.teacher)
    passed_on = student_features[name]
    if source != 'student':
      passed_on = (noised if source == 'noised' else clean)[teacher_name]
    read = cuts.replace_output(parts.student, student_features, name, passed_on)
  head = pairs.stages_after(parts.teacher, parts.groups[-1].stop[1])
  features, _ = graph.run(*teacher, noised, only=head)
  return graph.output(parts.teacher, features)


def noised_network(parts: Parts, source: str = 'noised') -> Network:
  """Returns the teacher under noise as a network that can be evaluated.

  It has one stage, 'model', whose parameters are the variables that
  `noised_teacher` takes. The noise is added at all breakpoints.

  Args:
    parts: the networks and their groups.
    source: see `noised_teacher`.
  """

  def apply(variables, image, train, rngs):
    del train, rngs
    tree = variables['params']
    rng = jax.random.key(0)
    outputs = noised_teacher(parts, tree, image, rng, source=source)
    main = graph.main_output(parts.teacher)
    named = outputs if isinstance(outputs, dict) else {main: outputs}
    return {'logits': named[main], **named}, {}

  network = adapters.from_functions(lambda rng, image: {}, apply)
  return network._replace(outputs=parts.teacher.outputs)


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


def control_masks(kind: str, masks: Model, rng: Array) -> Model:
  """Replaces learned masks by others of the same kind, for comparison.

  Args:
    kind: 'shuffled': the entries of each mask change places; 'inverted': M
      becomes 1 - M.
    masks: the model of the role 'masks'.
    rng: a random key.
  """

  def change(index: int, mask: Array) -> Array:
    if kind == 'inverted':
      return 1 - mask
    return _shuffled(jax.random.fold_in(rng, index), mask)

  leaves, structure = jax.tree.flatten(masks.variables['params'])
  changed = [change(i, mask) for i, mask in enumerate(leaves)]
  params = jax.tree.unflatten(structure, changed)
  return masks._replace(variables={**masks.variables, 'params': params})


def redrawn(variables: Variables, rng: Array) -> Variables:
  """Shuffles the entries of each kernel.

  If they were drawn independently from one distribution, the result is another
  draw of initial weights.

  Args:
    variables: the variables of a network.
    rng: a random key.
  """
  flat, structure = jax.tree_util.tree_flatten_with_path(variables['params'])
  leaves = [
    _shuffled(jax.random.fold_in(rng, i), x) if path[-1].key == 'kernel' else x
    for i, (path, x) in enumerate(flat)
  ]
  return {**variables, 'params': jax.tree.unflatten(structure, leaves)}


def _shuffled(rng: Array, values: Array) -> Array:
  """Puts the entries of an array into random places."""
  return jax.random.permutation(rng, values.reshape(-1)).reshape(values.shape)


def mask_summary(mask: Array) -> dict[str, Any]:
  """Summarises a mask as JSON.

  Args:
    mask: `[..., C]`.

  Returns:
    'above_half': the fraction of its entries above 0.5; 'mean': the mean of all
    entries; 'weight_variation': the standard deviation of the weights 1 - M,
    divided by their mean, 0 for a constant mask; 'channels': the mean of each
    channel, `[C]`; 'pixels': the mean over the channels, `[...]`.
  """
  rounded = np.round(np.asarray(mask, np.float64), 4)
  weights = 1 - rounded
  return {
    'above_half': float((rounded > 0.5).mean()),
    'mean': float(rounded.mean()),
    'weight_variation': float(weights.std() / max(weights.mean(), 1e-6)),
    'channels': rounded.reshape(-1, rounded.shape[-1]).mean(0).tolist(),
    'pixels': rounded.mean(-1).tolist(),
  }


def _masked(
  parts: Parts,
  masks: Variables,
  breakpoint_: tuple[str, str],
  teacher: Features,
  student: Features,
) -> Array:
  """Adds the student's feature at a breakpoint to the teacher's as noise."""
  name, teacher_name = breakpoint_
  inputs = {
    f'teacher/{teacher_name}': teacher[teacher_name],
    f'noise/{name}': student[name],
  }
  features, _ = graph.run(parts.masks, masks, inputs, only=(name,))
  return features[name]
