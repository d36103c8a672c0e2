"""Forward passes of single neighbourhoods, and their losses."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.core import random
from jaxdistill.core.types import (
  Array,
  Batch,
  Features,
  Model,
  Network,
  Variables,
)
from jaxdistill.methods.neighbourhood import moments, stacking
from jaxdistill.methods.neighbourhood.layouts import Layout, Neighbourhood
from jaxdistill.methods.neighbourhood.plan import FROM_IMAGE, Plan
from jaxdistill.networks import graph


def boundary_features(
  plan: Plan,
  layout: Layout,
  teacher: Model,
  batches: Mapping[str, Batch],
  rng: Array,
) -> Features:
  """Computes what neighbourhoods read: the teacher's features, or noise.

  Args:
    plan: says which of the two.
    layout: the neighbourhoods.
    teacher: the teacher.
    batches: {'train': batch} with inputs='data', otherwise {}.
    rng: the random key of the step.

  Returns:
    Teacher feature -> its values, for the boundaries; if each boundary
    has noise of its own, the last one is missing.
  """
  boundaries = [t for _, t in layout.cut]
  example = {'image': plan.recipe.example['image']}
  shapes = {**example, **graph.shapes(teacher.network, example)}

  def noise(index: int, feature: str) -> Array:
    key = random.step_key(rng, 'noise', index)
    return jax.random.normal(key, shapes[feature].shape)

  if plan.inputs in FROM_IMAGE:
    is_data = plan.inputs == 'data'
    image = batches['train']['image'] if is_data else noise(0, 'image')
    needed = graph.stages_between(teacher.network, 'image', boundaries[-1])
    features, _ = graph.run(*teacher, {'image': image}, only=needed)
    return {t: features[t] for t in boundaries}
  if plan.inputs == 'moments':
    image = noise(len(teacher.network.stages), 'image')
    features = moments.noise_features(teacher, image, boundaries[-2], rng)
    return {t: features[t] for t in boundaries[:-1]}
  drawn = {t: noise(i, t) for i, t in enumerate(boundaries[:-1])}
  if plan.inputs == 'gaussian':
    return drawn
  return {t: x if t == 'image' else jax.nn.relu(x) for t, x in drawn.items()}


def student_inputs(layout: Layout, boundaries: Features) -> Features:
  """Renames the boundary features from the teacher's to the student's names.

  Args:
    layout: the neighbourhoods.
    boundaries: teacher feature -> its values.
  """
  return {s: boundaries[t] for s, t in layout.cut if t in boundaries}


def outputs_of(
  plan: Plan,
  layout: Layout,
  piece: Neighbourhood,
  students: Mapping[str, Model],
  boundaries: Features,
  rng: Array,
  *,
  train: bool,
) -> tuple[Array, dict[str, Variables]]:
  """Runs one neighbourhood of all students.

  Args:
    plan: says how several students run.
    layout: the neighbourhoods.
    piece: the neighbourhood.
    students: role -> student.
    boundaries: what neighbourhoods read, by teacher feature.
    rng: the random key of the step.
    train: whether the neighbourhood is in training mode.

  Returns:
    (outputs `[len(students), B, ...]`, role -> the collections that changed).
  """
  inputs = student_inputs(layout, boundaries)

  def run(network: Network, variables: Variables) -> tuple[Array, Variables]:
    features, changed = graph.run(
      network,
      variables,
      inputs,
      only=piece.student,
      train=piece.student if train else (),
      rngs={'dropout': random.step_key(rng, 'dropout')},
    )
    return features[piece.output[0]], changed

  parts = [graph.select(v, piece.student) for _, v in students.values()]
  networks = [model.network for model in students.values()]
  if plan.form == 'unroll' or len(parts) == 1:
    results = [run(*arguments) for arguments in zip(networks, parts)]
    outputs = jnp.stack([output for output, _ in results])
    return outputs, dict(zip(students, [changed for _, changed in results]))
  widest = stacking.widest(parts)
  stack = stacking.stack(parts, parts[widest], stacking.devices())
  stack = stacking.spread(stack)
  outputs, changed = jax.vmap(lambda v: run(networks[widest], v))(stack)
  outputs = outputs[: len(parts)]
  likes = [{c: v[c] for c in changed} for v in parts]
  return outputs, dict(zip(students, stacking.unstack(changed, likes)))


def distances(
  plan: Plan,
  layout: Layout,
  index: int,
  outputs: Array,
  boundaries: Features,
  teacher: Model,
) -> list[Array]:
  """Computes L_i0, L_i1, ... of equations 4 and 5 of the paper.

  Args:
    plan: says how far to look ahead.
    layout: the neighbourhoods.
    index: the index i of the neighbourhood.
    outputs: the outputs of the students' neighbourhood,
      `[len(students), B, ...]`.
    boundaries: what neighbourhoods read, by teacher feature.
    teacher: the teacher.

  Returns:
    The distances, `[len(students)]` each.
  """
  count, batch_size = outputs.shape[:2]
  pieces = layout.neighbourhoods[index : index + 1 + len(plan.look_ahead)]

  def after(features: Features, piece: Neighbourhood) -> Features:
    new, _ = graph.run(*teacher, features, only=piece.teacher)
    return {**features, piece.output[1]: new[piece.output[1]]}

  name = pieces[0].output[1]
  # After a pass from an image, the boundaries hold all these features.
  teacher_features = (
    boundaries if plan.inputs in FROM_IMAGE else after(boundaries, pieces[0])
  )
  student_features = {t: _repeated(x, count) for t, x in boundaries.items()}
  student_features[name] = _flat(outputs)
  values: list[Array] = []
  for piece in pieces:
    name = piece.output[1]
    if values:
      student_features = after(student_features, piece)
      if plan.inputs not in FROM_IMAGE:
        teacher_features = after(teacher_features, piece)
    target = _repeated(teacher_features[name], count)
    distance = losses.squared_distance(student_features[name], target)
    values.append(distance.reshape(count, batch_size).mean(1))
  return values


def partial_outputs(
  plan: Plan,
  layout: Layout,
  models: Mapping[str, Model],
  students: Sequence[str],
  batches: Mapping[str, Batch],
  rng: Array,
) -> dict[str, Array]:
  """Computes the teacher's outputs with one neighbourhood replaced.

  All networks are in inference mode.

  Args:
    plan: names the teacher.
    layout: the neighbourhoods.
    models: role -> model, of the students and the teacher.
    students: the roles of the students.
    batches: {'train': batch}.
    rng: a random key, for students that need one.

  Returns:
    'candidates': `[neighbourhoods that train, students, B, ...]`, and
    'teacher': the outputs of the unchanged teacher, `[B, ...]`.
  """
  teacher = models[plan.teacher]
  image = {'image': batches['train']['image']}
  teacher_features, _ = graph.run(*teacher, image)
  boundaries = {t: teacher_features[t] for _, t in layout.cut}
  names = graph.stage_names(teacher.network)
  candidates = []

  def by_student(x: Array) -> Array:
    return x.reshape(len(students), -1, *x.shape[1:])

  for piece in layout.trained:
    outputs, _ = outputs_of(
      plan,
      layout,
      piece,
      {role: models[role] for role in students},
      boundaries,
      rng,
      train=False,
    )
    inputs = {t: _repeated(x, len(students)) for t, x in boundaries.items()}
    inputs[piece.output[1]] = _flat(outputs)
    remaining = names[names.index(piece.teacher[-1]) + 1 :]
    features, _ = graph.run(*teacher, inputs, only=remaining)
    # The last neighbourhood may itself compute the outputs of the network.
    result = graph.output(teacher.network, {**inputs, **features})
    candidates.append(jax.tree.map(by_student, result))
  return {
    'candidates': jax.tree.map(lambda *x: jnp.stack(x), *candidates),
    'teacher': graph.output(teacher.network, teacher_features),
  }


def _flat(outputs: Array) -> Array:
  """Reshapes `[students, B, ...]` to `[students * B, ...]`."""
  return outputs.reshape(-1, *outputs.shape[2:])


def _repeated(x: Array, count: int) -> Array:
  """Repeats `[B, ...]` to `[count * B, ...]`."""
  return jnp.tile(x, (count, *[1] * (x.ndim - 1)))
