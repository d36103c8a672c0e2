"""Chains of teachers: generations of one network, and assistants.

Each is handed on as it is at its last epoch.

Furlanello et al., Born Again Neural Networks, 2018,
https://arxiv.org/abs/1805.04770; Mirzadeh et al., Improved Knowledge
Distillation via Teacher Assistant, 2019, https://arxiv.org/abs/1902.03393
"""

from collections.abc import Mapping
import itertools

from jaxdistill import steps
from jaxdistill import terms as terms_lib
from jaxdistill.methods import joint
from jaxdistill.networks import staged
from jaxdistill.types import Carry, Method, Model, Network, Recipe


def born_again(
  recipe: Recipe,
  *,
  generations: int = 2,
  label_weight: float = 0.0,
  student: str = 'student',
) -> Method:
  """BAN: each generation learns the classes of the one before.

  The first learns from labels, the next ones are new networks of the same kind
  that learn the softened classes at temperature 1, `losses.refinery_loss`.

  Args:
    recipe: how each generation is trained, for the recipe's epochs each.
    generations: after the first.
    label_weight: factor on the labels from the second on; 1: BAN+L.
    student: the role that trains.
  """

  def renew(rng, carry: Carry) -> dict[str, Model]:
    network = carry[student].network
    image = {'image': recipe.example['image']}
    fresh = Model(network, staged.init(network, rng, image))
    return {'parent': carry[student], student: fresh}

  def generation(n: int) -> Method:
    return (
      lambda carry: steps.setup_phase(f'generation{n}', renew),
      *joint.joint(
        recipe,
        terms={'refinery': terms_lib.refinery()},
        label_weight=label_weight,
        student=student,
        teacher='parent',
        name=f'ban{n}',
      ),
    )

  return sum(
    (generation(n) for n in range(1, generations + 1)),
    start=joint.supervised(recipe, student=student),
  )


def assistants(
  recipe: Recipe,
  *,
  assistants: Mapping[str, Network],
  weight: float = 0.9,
  temperature: float = 4.0,
  label_weight: float = 0.1,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """TAKD: knowledge distillation from the teacher down a chain to the student.

  Args:
    recipe: how each hop is trained, for the recipe's epochs each.
    assistants: name -> network, from the largest to the smallest.
    weight: factor on the soft targets.
    temperature: of the soft targets.
    label_weight: factor on the loss of the labels.
    student: the role at the end.
    teacher: the role at the beginning.
  """

  def new(rng, carry: Carry) -> dict[str, Model]:
    del carry
    image = {'image': recipe.example['image']}
    return {
      name: Model(network, staged.init(network, rng, image))
      for name, network in assistants.items()
    }

  chain = [teacher, *assistants, student]
  method: Method = (lambda carry: steps.setup_phase('new_assistants', new),)
  for upper, lower in itertools.pairwise(chain):
    method += joint.kd(
      recipe,
      weight=weight,
      temperature=temperature,
      label_weight=label_weight,
      student=lower,
      teacher=upper,
    )
  return method
