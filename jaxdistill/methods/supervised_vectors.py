"""Training on labels that leaves a vector: the baseline of `embedding`."""

import numpy as np

from jaxdistill import phases
from jaxdistill.core import marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  Method,
  Model,
  Network,
  Phase,
  PyTree,
  Recipe,
)
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import pooling
from jaxdistill.objectives import pairs
from jaxdistill.phases import joint
from jaxdistill.tasks import classification


def supervised_vectors(recipe: Recipe, *, student: str = 'student') -> Method:
  """Trains a network on the labels, and keeps the vector that its head reads.

  In the task `embedding`, the last stage of a student maps its own vector to
  the teacher's. Here, a classifier takes the place of this stage while the
  network learns the labels, and is removed at the end. The network never sees
  a teacher, so that it shows what the teacher adds. It takes one phase of the
  recipe's length, during which no model is evaluated.

  Args:
    recipe: how the network is trained. Its loss is that of classification,
      whatever the loss of its task.
    student: the role of the network that trains.

  Raises:
    UsageError: the outputs of the task are not vectors, the images have no
      labels, or, when the phase begins, the last stage of the network is not a
      linear layer.
  """
  if recipe.task.probes is None:
    raise UsageError(
      "supervised_vectors: expected a task of vectors, such as 'embedding', "
      f"got {recipe.task.name!r}, for which 'supervised' learns the labels"
    )
  if 'label' not in recipe.examples:
    raise UsageError(
      'supervised_vectors: expected images with labels, got images without them'
    )
  label = np.asarray(recipe.examples['label'])
  num_classes = label.shape[1] if label.ndim > 1 else int(label.max()) + 1
  recipe = recipe._replace(task=classification())

  @marks.any_classes
  def phase(carry: Carry) -> Phase:
    network = with_classes(phases.model_in(carry, student).network, num_classes)
    head = (network.stages[-1].name,)
    (supervised,) = joint.supervised(recipe, student=student)
    inner = supervised({**carry, student: Model(network, {})})

    def init(rng: Array, carry: Carry) -> tuple[PyTree, PyTree]:
      image = {'image': recipe.example['image']}
      new = graph.select(graph.init(network, rng, image), head)
      variables = graph.merge(carry[student].variables, new)
      return inner.init(rng, {**carry, student: Model(network, variables)})

    def finish(state: PyTree, frozen: PyTree, carry: Carry) -> Carry:
      carry = inner.finish(state, frozen, carry)
      return {**carry, student: pooling.without_head(carry[student])}

    return inner._replace(init=init, finish=finish, eval_models={})

  return (phase,)


def with_classes(network: Network, num_classes: int) -> Network:
  """Returns a network whose last stage gives scores of classes.

  Args:
    network: a network that ends with a linear layer.
    num_classes: the number of classes.

  Raises:
    UsageError: the last stage is not a linear layer, or it reads more than the
      stage before it.
  """
  last = network.stages[-1]
  if not pairs.is_classifier(network):
    raise UsageError(
      'supervised_vectors: expected a student that ends with a linear layer, '
      f'got {type(last.module).__name__}'
    )
  pooling.without_head(Model(network, {}))
  module = last.module.clone(num_classes=num_classes)
  return Network((*network.stages[:-1], last._replace(module=module)))
