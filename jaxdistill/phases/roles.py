"""The models in the carry, looked up by their role."""

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Model, Network, Recipe
from jaxdistill.networks import graph


def model_in(carry: Carry, role: str) -> Model:
  """Returns the model that has a role.

  Args:
    carry: what the phases so far have handed on.
    role: the key of the model, such as 'student'.

  Raises:
    UsageError: the carry holds nothing under this key, or not a model.
  """
  if role not in carry:
    raise UsageError(
      f'the method needs a model in the role {role!r}; there are '
      f'{", ".join(carry)}'
    )
  model = carry[role]
  if not isinstance(model, Model):
    raise UsageError(
      f'role {role!r}: expected a Model, which is a network with its variables '
      f'(see new_model), got {type(model).__name__}'
    )
  return model


def check_outputs(student: Network, teacher: Network, recipe: Recipe) -> None:
  """Checks that two networks have main outputs of the same shape.

  Args:
    student: the network that learns.
    teacher: the network that it learns from.
    recipe: says which shape images have.

  Raises:
    UsageError: the shapes differ.
  """
  image = {'image': recipe.example['image']}
  student_shape, teacher_shape = (
    graph.shapes(network, image)[graph.main_output(network)].shape[1:]
    for network in (student, teacher)
  )
  if student_shape != teacher_shape:
    raise UsageError(
      f"expected outputs of one shape, got the student's {student_shape} and "
      f"the teacher's {teacher_shape} for each image; they must have the same "
      'number of classes'
    )
