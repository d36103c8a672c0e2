"""The phases that compose students and train their neighbourhoods.

The methods `neighbourhood` and `student_search` are made of these phases.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxdistill import phases
from jaxdistill.core import random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  Model,
  Phase,
  PyTree,
  Variables,
)
from jaxdistill.methods.neighbourhood import forward, layouts
from jaxdistill.methods.neighbourhood.layouts import Layout
from jaxdistill.methods.neighbourhood.plan import Plan
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import layerwise


def compose_phase(
  plan: Plan,
  carry: Carry,
  students: Callable[[Array, Carry], dict[str, Model]],
  *,
  by_layers: bool = False,
  from_teacher: Collection[str] = (),
) -> Phase:
  """Builds the phase that makes students with copies of the teacher's stages.

  Args:
    plan: gives the layout.
    carry: what the phase will receive.
    students: (rng, carry) -> role -> student.
    by_layers: whether students and teacher are split into layers.
    from_teacher: the roles of the students that start with the teacher's
      variables wherever name and shape agree.

  Raises:
    UsageError: a choice of the plan does not exist, nothing is left to train,
      or `layouts.layout` rejects the networks.
  """
  plan.check()

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    teacher = phases.model_in(carry, plan.teacher)
    new_models = students(rng, carry)
    if by_layers:
      teacher = layerwise.by_layers(teacher)
      new_models = {k: layerwise.by_layers(v) for k, v in new_models.items()}
    networks = [model.network for model in new_models.values()]
    shared = plan.shared(networks, teacher.network)
    for network in networks:
      if not shared.layout(network, teacher.network).stages:
        raise UsageError(
          'copy_same: the student equals the teacher, so that nothing is left '
          'to train; narrow the student, or give copy_same=False'
        )
    composed = {
      role: _composed(shared, model, teacher, role in from_teacher)
      for role, model in new_models.items()
    }
    return {**composed, plan.teacher: teacher} if by_layers else composed

  # Errors are raised now, before anything runs.
  jax.eval_shape(lambda rng: models(rng, carry) and (), jax.random.key(0))
  return phases.setup_phase('compose', models)


def train_phase(
  plan: Plan,
  carry: Carry,
  students: Sequence[str],
  only: str | None = None,
) -> Phase:
  """Builds the phase that trains neighbourhoods of all students at once.

  Args:
    plan: what they learn from.
    carry: holds the students, which must share one layout, and the teacher.
    students: the roles of the students.
    only: the name of the only neighbourhood that trains; None: all of them.
  """
  layout = layout_of(plan, carry, students[0])
  trained = [piece for piece in layout.trained if only in (None, piece.name)]
  networks = {role: carry[role].network for role in (*students, plan.teacher)}
  recipe = plan.recipe

  def loss_fn(variables, batches, rng, progress):
    del progress
    teacher = Model(networks[plan.teacher], variables[plan.teacher])
    boundaries = forward.boundary_features(plan, layout, teacher, batches, rng)
    updates: dict[str, Variables] = {role: {} for role in students}
    metrics, total = {}, jnp.zeros(())
    for i, piece in enumerate(layout.neighbourhoods):
      if piece not in trained:
        continue
      models = {k: Model(networks[k], variables[k]) for k in students}
      outputs, changed = forward.outputs_of(
        *(plan, layout, piece, models, boundaries, rng), train=True
      )
      for role in students:
        updates[role] = graph.merge(updates[role], changed[role])
      distances = forward.distances(
        plan, layout, i, outputs, boundaries, teacher
      )
      metrics[f'distance/{piece.name}'] = distances[0].mean()
      weights = (1.0, *plan.look_ahead)
      total += sum(w * d.sum() for w, d in zip(weights, distances))
    return total, (updates, metrics)

  return phases.gradient_phase(
    'neighbourhoods',
    loss_fn,
    _optimizer(plan),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream} if plan.inputs == 'data' else {},
    networks=networks,
    trainable={
      role: tuple(name for piece in trained for name in piece.student)
      for role in students
    },
  )


def statistics_phase(
  plan: Plan,
  carry: Carry,
  student: str,
  num_steps: int,
) -> Phase:
  """Builds the phase that re-estimates a student's batch statistics.

  On data they are the statistics of the student's own activations; on noise
  they are those of each neighbourhood by itself.

  Args:
    plan: what neighbourhoods learn from.
    carry: holds the models.
    student: the role of the student.
    num_steps: the number of batches.
  """
  layout = layout_of(plan, carry, student)
  network = carry[student].network
  if plan.inputs == 'data':
    return phases.statistics_phase(
      'statistics',
      network,
      graph.stage_names(network),
      role=student,
      num_steps=num_steps,
      stream=plan.recipe.stream,
    )
  teacher_network = phases.model_in(carry, plan.teacher).network

  def on_noise(variables, frozen, batches, rng):
    teacher = Model(teacher_network, frozen[plan.teacher])
    boundaries = forward.boundary_features(plan, layout, teacher, batches, rng)
    updates: Variables = {'batch_stats': {}}
    for piece in layout.trained:
      _, changed = graph.run(
        network,
        variables,
        forward.student_inputs(layout, boundaries),
        only=piece.student,
        train=piece.student,
        rngs={'dropout': random.step_key(rng, 'dropout')},
      )
      updates = graph.merge(updates, changed)
    return updates

  return phases.statistics_phase(
    'statistics',
    network,
    layout.stages,
    role=student,
    num_steps=num_steps,
    stream=None,
    forward=on_noise,
    constant=(plan.teacher,),
  )


def layout_of(plan: Plan, carry: Carry, student: str) -> Layout:
  """Divides a student in the carry, and the teacher, into neighbourhoods.

  Args:
    plan: says how.
    carry: holds both models.
    student: the role of the student.
  """
  return plan.layout(
    phases.model_in(carry, student).network,
    phases.model_in(carry, plan.teacher).network,
  )


def where_equal(student: PyTree, teacher: PyTree) -> PyTree:
  """Takes the teacher's arrays wherever name and shape are the student's.

  Args:
    student: a tree of nested dicts.
    teacher: another one.

  Returns:
    A tree like the student's.
  """
  if isinstance(student, Mapping):
    inner = teacher if isinstance(teacher, Mapping) else {}
    return {k: where_equal(v, inner.get(k)) for k, v in student.items()}
  equal = teacher is not None and teacher.shape == student.shape
  return teacher if equal else student


def _optimizer(plan: Plan) -> optax.GradientTransformation:
  """Makes the recipe's optimizer, or one for each role."""
  steps = plan.recipe.num_steps
  if not plan.optimizer_of:
    return plan.recipe.optimizer(steps)
  return optax.partition(
    {role: optimizer(steps) for role, optimizer in plan.optimizer_of.items()},
    lambda params: {
      role: jax.tree.map(lambda _, role=role: role, tree)
      for role, tree in params.items()
    },
  )


def _composed(
  plan: Plan, model: Model, teacher: Model, from_teacher: bool
) -> Model:
  """Copies the teacher's variables that a student is to start with."""
  layout = plan.layout(model.network, teacher.network)
  model = layouts.compose(layout, model, teacher)
  if not from_teacher:
    return model
  copies = _counterparts(layout, teacher.variables)
  return model._replace(variables=where_equal(model.variables, copies))


def _counterparts(layout: Layout, teacher: Variables) -> Variables:
  """Renames the teacher's variables to the names of the student's stages.

  Neighbourhoods in which the two have different numbers of stages are omitted.
  """
  names = [
    names
    for piece in layout.trained
    if len(piece.student) == len(piece.teacher)
    for names in zip(piece.student, piece.teacher)
  ]
  return {
    collection: {s: tree[t] for s, t in names if t in tree}
    for collection, tree in teacher.items()
  }
