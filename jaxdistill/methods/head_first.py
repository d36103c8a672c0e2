"""LP-FT: a new head learns from fixed features before all layers learn.

A network that has the weights of another task gets a new head. If all of its
layers learn at once, the random head sends large gradients through them, which
spoil good features before the head can use them.

Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution, 2022, https://arxiv.org/abs/2202.10054
"""

import jax
import jax.numpy as jnp

from jaxdistill import optimizers, phases
from jaxdistill.core import checks, marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Carry,
  Method,
  Model,
  Optimizer,
  Phase,
  PyTree,
  Recipe,
)
from jaxdistill.networks import graph, layers
from jaxdistill.phases import joint


def head_first(
  recipe: Recipe,
  *,
  first: float = 0.5,
  head_optimizer: Optimizer | None = None,
  frozen_statistics: bool = True,
  student: str = 'student',
) -> Method:
  """LP-FT: trains the head on the labels first, then the whole network.

  In the first phase, all stages but the head are in inference mode, so that a
  step costs little more than a forward pass. The head is the last stage and, in
  a network `embedded`, also the embedding: two linear maps are together one
  linear map of the features. A linear classifier begins at zero. In the second
  phase, all stages learn from the labels with the recipe's optimizer, whose
  rate should be small. It needs no teacher.

  Args:
    recipe: how the network is trained; the phases share its epochs.
    first: the fraction of the epochs that is spent on the head, in [0, 1]. With
      1, only the head learns.
    head_optimizer: the optimizer of the head; None means AdamW, which suits
      features of any scale, with a cosine schedule that starts at 0.001.
    frozen_statistics: whether batch norms use their running statistics, and
      keep them unchanged, in the second phase too.
    student: the role of the network that trains.

  Raises:
    UsageError: `first` is out of its range, or, when the phase begins, the last
      stage is not one of the library's classifiers.
  """
  checks.number('first', first, at_least=0, at_most=1)
  optimizer = head_optimizer or optimizers.adamw(optimizers.cosine(rate=1e-3))
  head = recipe._replace(epochs=first * recipe.epochs, optimizer=optimizer)
  whole = recipe._replace(epochs=(1 - first) * recipe.epochs)

  def head_stages(carry: Carry) -> tuple[str, ...]:
    *others, last = phases.model_in(carry, student).network.stages
    if not isinstance(last.module, layers.CLASSIFIERS):
      raise UsageError(
        'head_first: expected a network that ends with a classifier, got '
        f'{type(last.module).__name__}'
      )
    embedding = [
      stage.name
      for stage in others[-1:]
      if isinstance(stage.module, layers.Hidden) and not stage.module.activation
    ]
    return (*embedding, last.name)

  (probe,) = joint.supervised(
    head, student=student, trainable=head_stages, name='head'
  )

  @marks.any_classes
  def from_zero(carry: Carry) -> Phase:
    phase = probe(carry)
    last = carry[student].network.stages[-1]
    if not isinstance(last.module, layers.Classifier):
      return phase  # the direction of zeros is not defined

    def init(rng: Array, carry: Carry) -> tuple[PyTree, PyTree]:
      network, variables = carry[student]
      zeros = jax.tree.map(jnp.zeros_like, variables['params'][last.name])
      variables = graph.merge(variables, {'params': {last.name: zeros}})
      return phase.init(rng, {**carry, student: Model(network, variables)})

    return phase._replace(init=init)

  return (
    from_zero,
    *joint.supervised(
      whole,
      student=student,
      frozen_statistics=frozen_statistics,
      name='fine_tuning',
    ),
  )
