"""What neighbourhoods learn from, shared by all phases of a method."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxdistill import optimizers
from jaxdistill.core import checks
from jaxdistill.core.types import FeaturePairs, Network, Recipe
from jaxdistill.methods.neighbourhood import layouts

INPUTS = ('data', 'gaussian', 'rectified', 'image', 'moments')
# With these, the boundary features are those of one pass of the teacher.
FROM_IMAGE = ('data', 'image')
INITIAL = ('random', 'teacher')
FORMS = ('unroll', 'stack')


class Plan(NamedTuple):
  """What neighbourhoods learn from, and how.

  Attributes:
    recipe: how they are trained.
    cut: the boundaries, see `layouts.layout`.
    copy_same: see `layouts.layout`.
    look_ahead: c_1, c_2, ... of Equation (5) of Neighbourhood Distillation.
    inputs: what they read, one of `INPUTS`.
    form: how several students run, one of `FORMS`.
    teacher: the role of the network that they learn from.
    optimizer_of: role of a student -> its optimizer, if students do not use the
      recipe's.
  """

  recipe: Recipe
  cut: FeaturePairs | None = None
  copy_same: bool = False
  look_ahead: tuple[float, ...] = ()
  inputs: str = 'data'
  form: str = 'unroll'
  teacher: str = 'teacher'
  optimizer_of: Mapping[str, optimizers.Optimizer] = {}

  def layout(self, student: Network, teacher: Network) -> layouts.Layout:
    """Divides a student and its teacher into neighbourhoods."""
    return layouts.layout(
      student,
      teacher,
      self.recipe.example,
      cut=self.cut,
      copy_same=self.copy_same,
    )

  def shared(self, students: Sequence[Network], teacher: Network) -> 'Plan':
    """Returns the plan with the boundaries that all students have.

    Args:
      students: the students.
      teacher: the teacher.
    """
    cuts = [self.layout(student, teacher).cut for student in students]
    image = ('image', 'image')
    common = [p for p in cuts[0] if all(p in (*cut, image) for cut in cuts)]
    if any(cut[0] == image for cut in cuts) and common[:1] != [image]:
      common.insert(0, image)
    return self._replace(cut=tuple(common))

  def check(self) -> None:
    """Raises UsageError if a choice does not exist or a weight is invalid."""
    checks.choice('inputs', self.inputs, INPUTS)
    checks.choice('form', self.form, FORMS)
    for weight in self.look_ahead:
      checks.number('look_ahead', weight, at_least=0)


def train_recipe(
  recipe: Recipe,
  epochs: float | None,
  optimizer: optimizers.Optimizer | None,
) -> Recipe:
  """Returns the recipe of the neighbourhoods.

  Args:
    recipe: the recipe of the method.
    epochs: the epochs; None means those of the recipe.
    optimizer: the optimizer; None means the paper's.

  Raises:
    UsageError: the epochs are not a number of at least 0.
  """
  if epochs is not None:
    checks.number('neighbourhood_epochs', epochs, at_least=0)
  schedule = optimizers.constant(rate=1e-3)
  default = optimizers.sgd(schedule, nesterov=False, weight_decay=1e-4)
  return recipe._replace(
    epochs=recipe.epochs if epochs is None else epochs,
    optimizer=optimizer or default,
  )
