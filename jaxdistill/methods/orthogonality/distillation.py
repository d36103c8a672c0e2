"""Distillation by labels and by features, as both studies of the paper use it.

Equation 1 is `losses.soft_target_loss` and equation 2 is
`losses.normalized_l1_loss`, each added to the loss on the labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdistill import objectives, phases
from jaxdistill.core import checks
from jaxdistill.core.types import Carry, Method, Model, PhaseBuilder, Recipe
from jaxdistill.losses import numerics
from jaxdistill.networks import graph
from jaxdistill.phases import joint

KINDS = ('label', 'feature')


class Distillation(NamedTuple):
  """The weights of both kinds of distillation, the same throughout a study.

  Attributes:
    alpha: the weight of the soft targets; that of the labels is 1 - alpha.
    temperature: the temperature of the soft targets.
    beta: the weight of the feature loss, see `objectives.fd`.
  """

  alpha: float
  temperature: float
  beta: float

  def check(self, kinds: Sequence[str]) -> None:
    """Checks the numbers and the kinds, before the first network is trained.

    Args:
      kinds: the kinds of distillation that are used.

    Raises:
      UsageError: a number is out of its range, or a kind does not exist.
    """
    checks.number('alpha', self.alpha, at_least=0, at_most=1)
    numerics.check_temperature('temperature', self.temperature)
    checks.weights(beta=self.beta)
    for kind in kinds:
      checks.choice('kind of distillation', kind, KINDS)

  def method(
    self, recipe: Recipe, kind: str, student: str, teacher: str
  ) -> Method:
    """Returns one phase of distillation, which has the name of the student.

    Args:
      recipe: how the student is trained.
      kind: 'label' or 'feature'.
      student: the role of the network that trains.
      teacher: the role of the network that it learns from.
    """
    objective = (
      objectives.kd(weight=self.alpha, temperature=self.temperature)
      if kind == 'label'
      else objectives.fd(weight=self.beta)
    )
    return joint.joint(
      recipe,
      terms={kind: objective},
      label_weight=1 - self.alpha if kind == 'label' else 1.0,
      student=student,
      teacher=teacher,
      name=student,
    )


def new(recipe: Recipe, role: str, like: str) -> PhaseBuilder:
  """Puts a new network into the carry.

  Args:
    recipe: says which shape images have.
    role: the role of the new network.
    like: the role of a network of the same kind.
  """

  def models(rng: Any, carry: Carry) -> dict[str, Model]:
    network = phases.model_in(carry, like).network
    image = {'image': recipe.example['image']}
    return {role: Model(network, graph.init(network, rng, image))}

  return lambda carry: phases.setup_phase(f'new_{role}', models)


def copied(roles: Mapping[str, str], name: str) -> PhaseBuilder:
  """Copies models in the carry.

  Args:
    roles: new role -> the role whose model it gets.
    name: the name of the phase.
  """

  def models(rng: Any, carry: Carry) -> dict[str, Model]:
    del rng
    return {k: phases.model_in(carry, v) for k, v in roles.items()}

  return lambda carry: phases.setup_phase(name, models)
