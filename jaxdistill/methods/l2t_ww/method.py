"""L2T-ww: learns what to transfer, and where to, while the student trains.

Jang et al., Learning What and Where to Transfer, 2019,
https://arxiv.org/abs/1905.05901

DistPro is compared with this method. It learns the weights of channels and of
feature pairs as functions of the image; see `matching`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import objectives, optimizers, phases
from jaxdistill.core import checks, marks, random
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  FeaturePairs,
  Method,
  Metrics,
  Model,
  Phase,
  PyTree,
  Recipe,
  Variables,
)
from jaxdistill.methods.l2t_ww import matching as matching_lib
from jaxdistill.networks import graph
from jaxdistill.phases import bilevel
from jaxdistill.tasks import requirements

# (params by role, variables of the weights) -> ((loss of the labels, weighted
# matching), (updates of the student, metrics)).
Losses = Callable[[PyTree, Variables], Any]


class TransferState(NamedTuple):
  """The state of the phase.

  Attributes:
    step: the number of steps taken, int32.
    variables: 'student' and 'adapters' -> variables.
    optimizer: the state of the optimizer of both.
    weights: the variables of the networks that compute weights.
    weights_optimizer: the state of the optimizer of these networks.
  """

  step: Array
  variables: dict[str, Variables]
  optimizer: optax.OptState
  weights: Variables
  weights_optimizer: optax.OptState


def l2t_ww(
  recipe: Recipe,
  *,
  weight: float = 0.5,
  look_ahead: int = 2,
  feature_pairs: FeaturePairs | None = None,
  weights_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains on the labels and on feature matching with learned weights.

    CE + weight * matching(weights)

  After each step, the student takes `look_ahead` trial steps on the matching
  only and one on the labels, from its current parameters and momentum and on
  the same batch. The weights descend the loss of the labels after these steps,
  which are then discarded.

  It takes one phase of the recipe's length, in which every step also computes
  `look_ahead` + 1 trial steps and differentiates through them.

  Args:
    recipe: how the student is trained. The trial steps are differentiated
      through its optimizer, see `bilevel.descend`.
    weight: the factor on the matching, beta in the paper.
    look_ahead: the number of trial steps on the matching, T in the paper.
    feature_pairs: see `matching.build`.
    weights_optimizer: the optimizer of the weights; None means Adam at 1e-4
      with weight decay 1e-4 added to the gradient. A plateau rule in it watches
      the loss of the labels after the trial steps, and does not end training.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a number is out of its range, or a feature does not exist.
  """
  checks.weights(weight=weight)
  requirements.label_loss('l2t_ww', recipe.task)
  checks.integer('look_ahead', look_ahead)
  meta_optimizer = (weights_optimizer or _adam)(recipe.num_steps)

  @marks.any_classes
  def phase(carry: Carry) -> Phase:
    networks = {
      k: phases.model_in(carry, k).network for k in (student, teacher)
    }
    pair = objectives.pair_of(networks[student], networks[teacher], recipe)
    optimizer = recipe.optimizer(recipe.num_steps)
    matching = matching_lib.build(pair, feature_pairs)
    transfer = _Transfer(
      recipe, pair, matching, weight, look_ahead, optimizer, meta_optimizer
    )

    def init(rng: Array, carry: Carry) -> tuple[TransferState, PyTree]:
      adapters_rng, weights_rng = jax.random.split(rng)
      shapes = objectives.adapter_inputs(pair)
      variables = {
        'student': carry[student].variables,
        'adapters': graph.init(matching.adapters, adapters_rng, shapes),
      }
      variables = jax.tree.map(jnp.copy, variables)
      weights = graph.init(matching.weights, weights_rng, shapes)
      state = TransferState(
        jnp.zeros((), jnp.int32),
        variables,
        optimizer.init(_params(variables)),
        weights,
        meta_optimizer.init(weights),
      )
      return state, carry[teacher].variables

    def trained(state: TransferState, frozen: PyTree) -> Model:
      del frozen
      return Model(networks[student], state.variables['student'])

    return Phase(
      name='l2t_ww',
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      init=init,
      step=transfer.step,
      finish=lambda s, frozen, carry: {**carry, student: trained(s, frozen)},
      eval_models={student: trained},
      stop=lambda state: optimizers.ended(state.optimizer),
    )

  return (phase,)


class _Transfer(NamedTuple):
  """Everything that a step computes with.

  Attributes:
    recipe: how the student is trained.
    pair: the networks.
    matching: the feature pairs.
    weight: the factor on the matching.
    look_ahead: the number of trial steps on the matching.
    optimizer: the optimizer of the student and the adapters.
    meta_optimizer: the optimizer of the weights.
  """

  recipe: Recipe
  pair: objectives.Pair
  matching: matching_lib.Matching
  weight: float
  look_ahead: int
  optimizer: optax.GradientTransformation
  meta_optimizer: optax.GradientTransformation

  def step(
    self,
    state: TransferState,
    frozen: Variables,
    batches: dict[str, Batch],
    rng: Array,
    static: Any,
  ) -> tuple[TransferState, Metrics]:
    """Takes a step of the student, and then one of the weights."""
    del static
    losses = self.losses(state, frozen, batches['train'], rng)

    def total(params: PyTree) -> tuple[Array, Any]:
      (label, matched), aux = losses(params, state.weights)
      return label + matched, (matched, *aux)

    params = _params(state.variables)
    (loss, (matched, updates, metrics)), gradient = jax.value_and_grad(
      total, has_aux=True
    )(params)
    change, optimizer_state = optimizers.update(
      self.optimizer, gradient, state.optimizer, params, value=loss
    )
    params = optax.apply_updates(params, change)
    label_ahead, weights_gradient = self.look(
      losses, params, optimizer_state, state.weights
    )
    weights_change, weights_state = optimizers.update(
      self.meta_optimizer,
      weights_gradient,
      state.weights_optimizer,
      state.weights,
      value=label_ahead,
    )
    variables = _with_params(state.variables, params)
    variables['student'] = graph.merge(variables['student'], updates)
    new_state = TransferState(
      state.step + 1,
      variables,
      optimizer_state,
      optax.apply_updates(state.weights, weights_change),
      weights_state,
    )
    return new_state, {
      **metrics,
      'matching': matched,
      'label_loss_ahead': label_ahead,
      'loss': loss,
    }

  def losses(
    self, state: TransferState, frozen: Variables, batch: Batch, rng: Array
  ) -> Losses:
    """Returns the losses on a batch, which use the statistics of the batch."""
    image = {'image': batch['image']}
    teacher_features, _ = graph.run(self.pair.teacher, frozen, image)
    teacher_features = {f'teacher/{k}': v for k, v in teacher_features.items()}

    def losses_at(params: PyTree, weights: Variables) -> Any:
      variables = _with_params(state.variables, params)
      student_features, updates = graph.run(
        self.pair.student,
        variables['student'],
        self.recipe.task.inputs(batch),
        train=True,
        rngs={'dropout': random.step_key(rng, 'dropout')},
      )
      features = {
        f'student/{k}': v for k, v in student_features.items()
      } | teacher_features
      matched = matching_lib.loss(
        self.matching, variables['adapters'], weights, features
      )
      outputs = graph.output(self.pair.student, student_features)
      label = self.recipe.task.loss(outputs, batch).mean()
      metrics = self.recipe.task.progress(outputs, batch)
      return (label, self.weight * matched), (updates, metrics)

    return losses_at

  def look(
    self, losses: Losses, params: PyTree, state: Any, weights: Variables
  ) -> tuple[Array, Variables]:
    """Computes the label loss after the trial steps, and its gradient.

    Args:
      losses: the losses on the batch.
      params: the parameters of the student and the adapters.
      state: the state of their optimizer.
      weights: the variables of the networks that compute weights.

    Returns:
      (loss of the labels `[]`, its gradient with respect to `weights`).
    """

    def label_after_steps(weights: Variables) -> Array:
      def label(params: PyTree) -> Array:
        return losses(params, weights)[0][0]

      def match(params: PyTree) -> Array:
        return losses(params, weights)[0][1]

      steps = [match] * self.look_ahead + [label]
      return label(bilevel.descend(steps, self.optimizer, state, params)[0])

    return jax.value_and_grad(label_after_steps)(weights)


def _adam(num_steps: int) -> optax.GradientTransformation:
  """Makes the default optimizer of the weights."""
  del num_steps
  return optax.chain(optax.add_decayed_weights(1e-4), optax.adam(1e-4))


def _params(variables: dict[str, Variables]) -> PyTree:
  """Selects the parameters of all roles."""
  return {k: v['params'] for k, v in variables.items()}


def _with_params(
  variables: dict[str, Variables], params: PyTree
) -> dict[str, Variables]:
  """Replaces the parameters of all roles."""
  return {
    k: graph.merge(v, {'params': params[k]}) for k, v in variables.items()
  }
