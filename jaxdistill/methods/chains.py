"""Chains of teachers: generations of one network, and teacher assistants.

Each network teaches the next one as it is at the end of its own training.

Furlanello et al., Born Again Neural Networks, 2018,
https://arxiv.org/abs/1805.04770; Mirzadeh et al., Improved Knowledge
Distillation via Teacher Assistant, 2019, https://arxiv.org/abs/1902.03393
"""

from collections.abc import Mapping
import itertools

from jaxdistill import objectives, phases
from jaxdistill.core import checks
from jaxdistill.core.types import Carry, Method, Model, Network, Recipe
from jaxdistill.networks import graph
from jaxdistill.phases import joint


def ban(
  recipe: Recipe,
  *,
  generations: int = 2,
  label_weight: float = 0.0,
  student: str = 'student',
) -> Method:
  """BAN: each generation learns the predictions of the generation before it.

  The first network learns from the labels. Every further one is a new network
  of the same kind that learns its predecessor's class probabilities at
  temperature 1 (`losses.refinery_loss`). It needs no teacher, and takes one
  phase of the recipe's length for each of the 1 + `generations` networks.

  Args:
    recipe: how each generation is trained.
    generations: the number of networks after the first.
    label_weight: the factor on the loss of the labels from the second network
      on; 1 gives BAN+L.
    student: the role of the network that trains.

  Raises:
    UsageError: a number is out of its range.
  """
  checks.weights(label_weight=label_weight)
  checks.integer('generations', generations, at_most=1000)

  def new_generation(rng, carry: Carry) -> dict[str, Model]:
    network = carry[student].network
    image = {'image': recipe.example['image']}
    model = Model(network, graph.init(network, rng, image))
    return {'parent': carry[student], student: model}

  def generation(n: int) -> Method:
    return (
      lambda carry: phases.setup_phase(f'generation{n}', new_generation),
      *joint.joint(
        recipe,
        terms={'refinery': objectives.refinery()},
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


def takd(
  recipe: Recipe,
  *,
  assistants: Mapping[str, Network],
  weight: float = 0.9,
  temperature: float = 4.0,
  label_weight: float = 0.1,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """TAKD: distils the teacher into the student through assistants.

  The teacher teaches the first assistant, each assistant teaches the next one,
  and the last assistant teaches the student, always by `kd`. It takes one phase
  of the recipe's length for the student and for each assistant.

  Args:
    recipe: how each network is trained.
    assistants: name -> network, from the largest to the smallest.
    weight: the factor on the soft targets.
    temperature: the temperature of the soft targets.
    label_weight: the factor on the loss of the labels.
    student: the role at the end of the chain.
    teacher: the role at the beginning of the chain.
  """
  checks.weights(weight=weight, label_weight=label_weight)

  def new_assistants(rng, carry: Carry) -> dict[str, Model]:
    del carry
    image = {'image': recipe.example['image']}
    return {
      name: Model(network, graph.init(network, rng, image))
      for name, network in assistants.items()
    }

  chain = [teacher, *assistants, student]
  method: Method = (
    lambda carry: phases.setup_phase('new_assistants', new_assistants),
  )
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
