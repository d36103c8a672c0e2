"""The models of a plan: networks of sections, initial weights, shapes."""

from collections.abc import Iterator
import contextlib
from typing import Any

import jax

from jaxdistill.core import random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Model, Network, Variables
from jaxdistill.networks import graph
from jaxdistill.networks.weights import backbones
from jaxdistill.phases import recipes
from jaxdistill.study.drafts import Role
from jaxdistill.study.parse import Section
from jaxdistill.study.plans import Plan

# No computer can train a network of more parameters.
LARGEST = 10**11


def build_network(section: Section, role: Role, num_classes: int) -> Network:
  """Builds the network of a section.

  Raises:
    UsageError: the arguments make no network; the message names the role.
  """
  problem = f'{role}: cannot build the network'
  try:
    with _usage_errors(problem):
      return section.build({'num_classes': num_classes})
  except UsageError as error:
    if str(error).startswith(role):
      raise
    raise UsageError(f'{problem} ({error})') from error


def initial_model(plan: Plan, role: Role, seed: int) -> Model:
  """Returns a new model of a role; it is the same for every row of a seed.

  If student and teacher have the same variables, they still begin with
  different values.

  Args:
    plan: holds the network.
    role: the role.
    seed: the seed of the run.
  """
  network = plan.networks[role]
  rng = random.model_key(seed)
  if role == 'student' and _has_teachers_shapes(plan):
    rng = random.similar_student_key(rng)
  variables = graph.init(network, rng, {'image': plan.image})
  if role in plan.initial:
    variables = plan.initial[role](random.initializer_key(rng), variables)
  return Model(network, variables)


def initial_notes(plan: Plan) -> tuple[str, ...]:
  """Says which stages get weights of a file, after checking that these fit.

  Returns:
    One line for each network that begins with such weights.

  Raises:
    UsageError: a file holds the weights of another network.
  """
  notes = []
  for role, scheme in plan.initial.items():
    if role in plan.networks:
      shapes = variable_shapes(plan, role, plan.networks[role])
      try:
        if isinstance(scheme, backbones.Pretrained):
          notes.append(f'{role}: {scheme.note(shapes)}')
        else:
          jax.eval_shape(scheme, jax.random.key(0), shapes)
      except UsageError as error:
        raise UsageError(f'{role}: {error}') from error
  return tuple(notes)


def abstract_carry(plan: Plan, role: Role) -> Carry:
  """Returns what a row's first phase gets, with shapes in place of variables.

  Args:
    plan: holds the networks.
    role: the model that the row trains.
  """
  roles: tuple[Role, ...] = ('teacher',)
  if role == 'student':
    roles = ('teacher', 'student')
  carry: Carry = {}
  for name in roles:
    if name in plan.networks:
      network = plan.networks[name]
      carry[name] = Model(network, variable_shapes(plan, name, network))
    elif plan.teacher is not None and name == 'teacher':
      carry[name] = plan.teacher
  return carry


def variable_shapes(plan: Plan, role: Role, network: Network) -> Variables:
  """Returns the shapes of a network's variables.

  Raises:
    UsageError: the network cannot read the images of the data set.
  """
  image = plan.image
  problem = f'{role}: the network cannot read images {image.shape[1:]}'
  with _usage_errors(problem):
    shapes = graph.variable_shapes(network, {'image': image})
  size = graph.count_parameters(shapes)
  if size > LARGEST:
    raise UsageError(
      f'{role}: expected a network of at most {LARGEST:.0e} parameters, got '
      f'{size:.1e}'
    )
  return shapes


def check_outputs(plan: Plan) -> None:
  """Checks that the task can read the outputs of the plan's new networks.

  Raises:
    UsageError: it cannot; the message names the role.
  """
  if plan.task.reads_teacher:  # its predictions do not exist yet
    return
  for role, network in plan.networks.items():
    try:
      read_outputs(plan, network)
    except UsageError as error:
      raise UsageError(f'{role}: {error}') from error


def read_outputs(plan: Plan, network: Network) -> None:
  """Traces how the task reads the outputs of a network.

  Raises:
    UsageError: it cannot read them.
  """
  batch = recipes.example(plan.dataset, plan.preprocess, 1)
  features = graph.shapes(network, {'image': batch['image']})
  outputs = graph.output(network, features)
  shapes = jax.tree.map(lambda x: x.shape[1:], outputs)
  problem = f'{plan.task.name}: cannot read the outputs {shapes} of the network'
  with _usage_errors(problem):
    jax.eval_shape(plan.task.statistics, outputs, batch)


def check_teacher_file(plan: Plan, teacher: Model) -> None:
  """Checks that a teacher from a file fits its network and the data.

  Raises:
    UsageError: an array is missing, superfluous or of another shape.
  """
  expected = variable_shapes(plan, 'teacher', teacher.network)
  file_shapes, expected_shapes = (
    _shapes_by_name(tree) for tree in (teacher.variables, expected)
  )
  for key in sorted({*file_shapes, *expected_shapes}):
    shape, other = file_shapes.get(key), expected_shapes.get(key)
    if shape != other:
      raise UsageError(
        f'teacher: {key}: expected {other or "no such array"} for '
        f'the network and the data, got {shape or "no such array"}'
      )


def _has_teachers_shapes(plan: Plan) -> bool:
  """Returns whether the student's variables have the teacher's shapes."""
  network = plan.networks.get('teacher')
  if plan.teacher is not None:
    network = plan.teacher.network
  if network is None:
    return False
  student_shapes = variable_shapes(plan, 'student', plan.networks['student'])
  return student_shapes == variable_shapes(plan, 'teacher', network)


def _shapes_by_name(variables: Any) -> dict[str, tuple[int, ...]]:
  """Returns {'params/stem/...': shape}."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): x.shape
    for path, x in jax.tree_util.tree_leaves_with_path(variables)
  }


@contextlib.contextmanager
def _usage_errors(problem: str) -> Iterator[None]:
  """Turns the errors that wrong numbers raise into a UsageError."""
  try:
    yield
  except UsageError:
    raise
  except (
    ArithmeticError,
    AttributeError,  # of outputs by name, where one array is expected
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    reason = str(error).partition('\n')[0]
    raise UsageError(f'{problem} ({reason})') from error
