"""Phases that train the neighbourhoods of students, each by itself.

What `neighbourhood` and `student_search` are made of; see there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import losses, optimizers, steps
from jaxdistill.methods import joint
from jaxdistill.networks import (
  arguments,
  layerwise,
  neighbourhoods,
  stacked,
  staged,
)
from jaxdistill.networks.neighbourhoods import Layout, Neighbourhood
from jaxdistill.terms import pairs
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Features,
  Model,
  Network,
  Phase,
  PyTree,
  Recipe,
  UsageError,
  Variables,
)

INPUTS = ('data', 'gaussian', 'rectified')
INITIAL = ('random', 'teacher')
FORMS = ('unroll', 'stack')


class Plan(NamedTuple):
  """What the neighbourhoods learn from, and how.

  Attributes:
    recipe: how.
    cut: see `networks.neighbourhoods.layout`.
    copy_same: see there.
    look_ahead: c_1, c_2, ... of Equation (5) of Neighbourhood Distillation.
    inputs: one of `INPUTS`.
    form: one of `FORMS`: how several students run.
    teacher: the role they learn from.
    optimizer_of: by role, where students do not have the recipe's.
  """

  recipe: Recipe
  cut: pairs.Pairs = None
  copy_same: bool = False
  look_ahead: tuple[float, ...] = ()
  inputs: str = 'data'
  form: str = 'unroll'
  teacher: str = 'teacher'
  optimizer_of: Mapping[str, optimizers.Optimizer] = {}

  def layout(self, student: Network, teacher: Network) -> Layout:
    return neighbourhoods.layout(
      student,
      teacher,
      self.recipe.example,
      cut=self.cut,
      copy_same=self.copy_same,
    )

  def check(self) -> None:
    """Raises UsageError at a choice that does not exist."""
    for key, value, valid in (
      ('inputs', self.inputs, INPUTS),
      ('form', self.form, FORMS),
    ):
      check_choice(key, value, valid)
    if not all(0 <= weight < float('inf') for weight in self.look_ahead):
      raise UsageError(
        f'look_ahead: wanted weights of at least 0, got {self.look_ahead}'
      )


def check_choice(key: str, value: str, valid: Sequence[str]) -> None:
  """Raises UsageError where `value` is not valid."""
  if value not in valid:
    raise staged.unknown(key, value, valid)


def train_recipe(
  recipe: Recipe,
  epochs: float | None,
  optimizer: optimizers.Optimizer | None,
) -> Recipe:
  """For some epochs; where no optimiser is given, with the paper's.

  Raises:
    UsageError: the epochs are no number of at least 0.
  """
  if epochs is not None:
    arguments.real('neighbourhood_epochs', epochs, 0)
  schedule = optimizers.constant(rate=1e-3)
  paper = optimizers.sgd(schedule, nesterov=False, weight_decay=1e-4)
  return recipe._replace(
    epochs=recipe.epochs if epochs is None else epochs,
    optimizer=optimizer or paper,
  )


def compose_phase(
  plan: Plan,
  carry: Carry,
  students: Callable[[Array, Carry], dict[str, Model]],
  *,
  by_layers: bool = False,
  initial: str = 'random',
) -> Phase:
  """Makes students that are the teacher's wherever they are copies of it.

  Args:
    plan: the layout.
    carry: what the phase will get.
    students: (rng, carry) -> role -> student.
    by_layers: whether students and teacher are taken apart into layers.
    initial: one of `INITIAL`.

  Raises:
    UsageError: what `networks.neighbourhoods.layout` refuses, or there is no
      such choice.
  """
  check_choice('initial', initial, INITIAL)
  plan.check()

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    teacher = joint.model_in(carry, plan.teacher)
    found = students(rng, carry)
    if by_layers:
      teacher = layerwise.by_layers(teacher)
      found = {k: layerwise.by_layers(v) for k, v in found.items()}
    for model in found.values():
      if not plan.layout(model.network, teacher.network).stages:
        raise UsageError(
          'copy_same: the student is the teacher, nothing is left to train; '
          'narrow the student, or give copy_same=False'
        )
    made = {
      role: _composed(plan, model, teacher, initial)
      for role, model in found.items()
    }
    return {**made, plan.teacher: teacher} if by_layers else made

  # All checks, before anything runs.
  jax.eval_shape(lambda rng: models(rng, carry) and (), jax.random.key(0))
  return steps.setup_phase('compose', models)


def keep(name: str, student: str) -> Callable[[Carry], Phase]:
  """Keeps the student as it is under another name in the carry."""

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    return {name: carry[student]}

  return lambda carry: steps.setup_phase(f'keep_{name}', models)


def train_phase(plan: Plan, carry: Carry, students: Sequence[str]) -> Phase:
  """Every neighbourhood of every student learns, all of them in one step.

  Args:
    plan: what they learn from.
    carry: holds the students, of one layout, and the teacher.
    students: their roles.
  """
  made = _of(plan, carry, students[0])
  networks = {role: carry[role].network for role in (*students, plan.teacher)}
  recipe = plan.recipe

  def loss_fn(variables, batches, rng, progress):
    del progress
    teacher = Model(networks[plan.teacher], variables[plan.teacher])
    known = _known(plan, made, teacher, batches, rng)
    updates: dict[str, Variables] = {role: {} for role in students}
    metrics, total = {}, jnp.zeros(())
    for i, own in enumerate(made.neighbourhoods):
      if own.copied:
        continue
      models = {k: Model(networks[k], variables[k]) for k in students}
      outputs, changed = _outputs(
        plan, made, own, models, known, rng, train=plan.inputs == 'data'
      )
      for role in students:
        updates[role] = staged.merge(updates[role], changed[role])
      distances = _distances(plan, made, i, outputs, known, teacher)
      metrics[f'distance/{own.name}'] = distances[0].mean()
      weights = (1.0, *plan.look_ahead)
      total += sum(w * d.sum() for w, d in zip(weights, distances))
    return total, (updates, metrics)

  return steps.gradient_phase(
    'neighbourhoods',
    loss_fn,
    _optimizer(plan),
    num_steps=recipe.num_steps,
    streams={'train': recipe.stream} if plan.inputs == 'data' else {},
    networks=networks,
    trainable={role: made.stages for role in students},
  )


def _optimizer(plan: Plan) -> optax.GradientTransformation:
  """The recipe's, or that of each role."""
  steps = plan.recipe.num_steps
  if not plan.optimizer_of:
    return plan.recipe.optimizer(steps)
  return optax.partition(
    {role: make(steps) for role, make in plan.optimizer_of.items()},
    lambda params: {
      role: jax.tree.map(lambda _, role=role: role, tree)
      for role, tree in params.items()
    },
  )


def statistics_phase(
  plan: Plan,
  carry: Carry,
  student: str,
  num_steps: int,
  *,
  copies: bool = False,
) -> Phase:
  """Estimates the student's batch statistics anew, and nothing else.

  On data those of its own activations; on noise those of each neighbourhood by
  itself.

  Args:
    plan: how pieces learn.
    carry: the models.
    student: the role.
    num_steps: how many batches.
    copies: on noise, the teacher's statistics where shapes agree, for kernels
      that are the teacher's too.
  """
  made, network = _of(plan, carry, student), carry[student].network
  if plan.inputs == 'data':
    return steps.statistics_phase(
      'statistics',
      network,
      staged.stage_names(network),
      role=student,
      num_steps=num_steps,
      stream=plan.recipe.stream,
    )
  taught = joint.model_in(carry, plan.teacher).network

  def forward(variables, frozen, batches, rng):
    teacher = Model(taught, frozen[plan.teacher])
    known = _known(plan, made, teacher, batches, rng)
    updates: Variables = {'batch_stats': {}}
    for own in made.trained:
      _, changed = staged.run(
        network,
        variables,
        _given(made, known),
        only=own.student,
        train=own.student,
        rngs={'dropout': rng},
      )
      updates = staged.merge(updates, changed)
    if copies:
      return where_alike(updates, _counterparts(made, teacher.variables))
    return updates

  return steps.statistics_phase(
    'statistics',
    network,
    made.stages,
    role=student,
    num_steps=num_steps,
    stream=None,
    forward=forward,
    constant=(plan.teacher,),
  )


def partial_answers(
  plan: Plan,
  made: Layout,
  models: Mapping[str, Model],
  students: Sequence[str],
  batches: Mapping[str, Batch],
  rng: Array,
) -> dict[str, Array]:
  """Answers of the teacher with one neighbourhood replaced, in inference mode.

  Args:
    plan: the layout.
    made: the same.
    models: by role, the students and the teacher.
    students: their roles.
    batches: {'train': batch}.
    rng: for students that need one.

  Returns:
    'candidates': `[neighbourhoods that train, students, B, ...]`, and
    'teacher': the whole teacher's answer `[B, ...]`.
  """
  teacher = models[plan.teacher]
  answer = staged.output(teacher.network)
  image = {'image': batches['train']['image']}
  whole, _ = staged.run(*teacher, image)
  known = {t: whole[t] for _, t in made.cut}
  found = []
  for own in made.trained:
    outputs, _ = _outputs(
      plan,
      made,
      own,
      {role: models[role] for role in students},
      known,
      rng,
      train=False,
    )
    given = {t: _repeated(x, len(students)) for t, x in known.items()}
    given[own.output[1]] = _flat(outputs)
    rest = staged.stage_names(teacher.network)
    rest = rest[rest.index(own.teacher[-1]) + 1 :]
    features, _ = staged.run(*teacher, given, only=rest)
    out = {**given, **features}[answer]  # the last piece may be the answer
    found.append(out.reshape(len(students), -1, *out.shape[1:]))
  return {'candidates': jnp.stack(found), 'teacher': whole[answer]}


def _flat(stacked_outputs: Array) -> Array:
  """`[students, B, ...]` as `[students * B, ...]`."""
  return stacked_outputs.reshape(-1, *stacked_outputs.shape[2:])


def _repeated(x: Array, count: int) -> Array:
  """`[B, ...]` as `[count * B, ...]`."""
  return jnp.tile(x, (count, *[1] * (x.ndim - 1)))


def _of(plan: Plan, carry: Carry, student: str) -> Layout:
  return plan.layout(
    joint.model_in(carry, student).network,
    joint.model_in(carry, plan.teacher).network,
  )


def _composed(plan: Plan, model: Model, teacher: Model, initial: str) -> Model:
  """The student with the teacher's variables where they are to be its own."""
  made = plan.layout(model.network, teacher.network)
  model = neighbourhoods.compose(made, model, teacher)
  if initial == 'random':
    return model
  copies = _counterparts(made, teacher.variables)
  return model._replace(variables=where_alike(model.variables, copies))


def _counterparts(made: Layout, teacher: Variables) -> Variables:
  """The teacher's variables under the names of the student's stages.

  A piece made of another number of stages has none.
  """
  names = [
    pair
    for own in made.trained
    if len(own.student) == len(own.teacher)
    for pair in zip(own.student, own.teacher)
  ]
  return {
    collection: {s: tree[t] for s, t in names if t in tree}
    for collection, tree in teacher.items()
  }


def where_alike(ours: PyTree, theirs: PyTree) -> PyTree:
  """`theirs` where it has an array of the same name and shape, else `ours`."""
  if isinstance(ours, Mapping):
    inside = theirs if isinstance(theirs, Mapping) else {}
    return {k: where_alike(v, inside.get(k)) for k, v in ours.items()}
  alike = theirs is not None and theirs.shape == ours.shape
  return theirs if alike else ours


def _known(
  plan: Plan,
  made: Layout,
  teacher: Model,
  batches: Mapping[str, Batch],
  rng: Array,
) -> Features:
  """Teacher feature -> what neighbourhoods read there, activations or noise."""
  boundaries = [t for _, t in made.cut]
  if plan.inputs == 'data':
    image = {'image': batches['train']['image']}
    needed = staged.stages_between(teacher.network, 'image', boundaries[-1])
    found, _ = staged.run(*teacher, image, only=needed)
    return {t: found[t] for t in boundaries}
  example = {'image': plan.recipe.example['image']}
  shapes = {**example, **staged.shapes(teacher.network, example)}
  noise = {
    t: jax.random.normal(jax.random.fold_in(rng, i), shapes[t].shape)
    for i, t in enumerate(boundaries[:-1])
  }
  if plan.inputs == 'gaussian':
    return noise
  return {t: x if t == 'image' else jax.nn.relu(x) for t, x in noise.items()}


def _given(made: Layout, known: Features) -> Features:
  """What is known, under the student's names."""
  return {s: known[t] for s, t in made.cut if t in known}


def _outputs(
  plan: Plan,
  made: Layout,
  own: Neighbourhood,
  students: Mapping[str, Model],
  known: Features,
  rng: Array,
  *,
  train: bool,
) -> tuple[Array, dict[str, Variables]]:
  """Of one neighbourhood of all students, `[len(students), B, ...]`.

  The second is what the passes have changed, by role.
  """
  given = _given(made, known)

  def run(network: Network, variables: Variables) -> tuple[Array, Variables]:
    features, changed = staged.run(
      network,
      variables,
      given,
      only=own.student,
      train=own.student if train else (),
      rngs={'dropout': rng},
    )
    return features[own.output[0]], changed

  parts = [staged.select(v, own.student) for _, v in students.values()]
  networks = [model.network for model in students.values()]
  if plan.form == 'unroll' or len(parts) == 1:
    found = [run(*pair) for pair in zip(networks, parts)]
    outputs = jnp.stack([output for output, _ in found])
    return outputs, dict(zip(students, [changed for _, changed in found]))
  at = stacked.widest(parts)
  whole = stacked.stack(parts, parts[at], stacked.devices())
  whole = stacked.spread(whole)
  outputs, changed = jax.vmap(lambda v: run(networks[at], v))(whole)
  outputs = outputs[: len(parts)]
  likes = [{c: v[c] for c in changed} for v in parts]
  return outputs, dict(zip(students, stacked.unstack(changed, likes)))


def _distances(
  plan: Plan,
  made: Layout,
  index: int,
  outputs: Array,
  known: Features,
  teacher: Model,
) -> list[Array]:
  """L_i0, L_i1, ... of Equations (4) and (5), `[len(students)]` each.

  Args:
    plan: how far to look ahead.
    made: the layout.
    index: i.
    outputs: of the students' neighbourhood, `[len(students), B, ...]`.
    known: teacher feature -> what neighbourhoods read there.
    teacher: the teacher.
  """
  count, batch = outputs.shape[:2]
  pieces = made.neighbourhoods[index : index + 1 + len(plan.look_ahead)]

  def ahead(given: Features, own: Neighbourhood) -> Features:
    found, _ = staged.run(*teacher, given, only=own.teacher)
    return {**given, own.output[1]: found[own.output[1]]}

  name = pieces[0].output[1]
  theirs = known if plan.inputs == 'data' else ahead(known, pieces[0])
  ours = {t: _repeated(x, count) for t, x in known.items()}
  ours[name] = _flat(outputs)
  found: list[Array] = []
  for own in pieces:
    name = own.output[1]
    if found:
      ours = ahead(ours, own)
      theirs = theirs if plan.inputs == 'data' else ahead(theirs, own)
    target = _repeated(theirs[name], count)
    distance = losses.squared_distance(ours[name], target)
    found.append(distance.reshape(count, batch).mean(1))
  return found
