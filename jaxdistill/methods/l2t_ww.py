"""L2T-ww: what to transfer, and where to, is learnt beside the student.

Jang et al., Learning What and Where to Transfer, 2019,
https://arxiv.org/abs/1905.05901

The rival of DistPro that learns weights of channels and pairs as functions of
the image; the matching is `terms.matching`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import bilevel, optimizers
from jaxdistill import terms as terms_lib
from jaxdistill.methods import joint
from jaxdistill.networks import arguments, staged
from jaxdistill.terms import matching as matching_lib
from jaxdistill.terms import pairs
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Method,
  Metrics,
  Model,
  Phase,
  PyTree,
  Recipe,
  Variables,
)

# (params by role, weights) -> ((loss of labels, weighted matching), (updates of
# the student, metrics)).
Losses = Callable[[PyTree, Variables], Any]


class TransferState(NamedTuple):
  """State of the phase.

  Attributes:
    step: how many steps were taken, int32.
    variables: of the student and the helpers, by role.
    optimizer: the state of their optimiser.
    weights: variables of the networks that weigh.
    weights_optimizer: the state of theirs.
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
  cut: pairs.Pairs = None,
  weights_optimizer: optimizers.Optimizer | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Trains on labels and on a matching of features whose weights are learnt.

    CE + weight * matching(weights)

  After each step the weights descend the loss of the labels behind some steps
  on the matching alone and one on the labels, all from the student as it is,
  with the momentum so far and on the same batch. These steps are thrown away.

  Args:
    recipe: how; the look-ahead is differentiated through its optimiser, see
      `bilevel.descend`.
    weight: factor on the matching, the paper's beta.
    look_ahead: steps on the matching alone, the paper's T.
    cut: see `terms.matching.build`.
    weights_optimizer: None: Adam at 1e-4, with 1e-4 of the weights added to
      their gradient.
    student: the role that trains.
    teacher: the role it learns from, in inference mode.

  Raises:
    UsageError: a number is out of its range, or a feature does not exist.
  """
  arguments.real('weight', weight, 0)
  arguments.whole('look_ahead', look_ahead)
  meta = (weights_optimizer or _adam)(recipe.num_steps)

  def phase(carry: Carry) -> Phase:
    networks = {k: joint.model_in(carry, k).network for k in (student, teacher)}
    joint.check_answers(networks[student], networks[teacher], recipe)
    pair = terms_lib.pair_of(networks[student], networks[teacher], recipe)
    optimizer = recipe.optimizer(recipe.num_steps)
    matching = matching_lib.build(pair, cut)
    transfer = _Transfer(
      recipe, pair, matching, weight, look_ahead, optimizer, meta
    )

    def init(rng: Array, carry: Carry) -> tuple[TransferState, PyTree]:
      first, second = jax.random.split(rng)
      shapes = terms_lib.inputs(pair)
      variables = {
        'student': carry[student].variables,
        'helpers': staged.init(matching.helpers, first, shapes),
      }
      variables = jax.tree.map(jnp.copy, variables)
      weights = staged.init(matching.weights, second, shapes)
      state = TransferState(
        jnp.zeros((), jnp.int32),
        variables,
        optimizer.init(_params(variables)),
        weights,
        meta.init(weights),
      )
      return state, carry[teacher].variables

    def view(state: TransferState, frozen: PyTree) -> Model:
      del frozen
      return Model(networks[student], state.variables['student'])

    return Phase(
      name='l2t_ww',
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      init=init,
      step=transfer.step,
      finish=lambda s, frozen, carry: {**carry, student: view(s, frozen)},
      views={student: view},
      stop=lambda state: optimizers.ended(state.optimizer),
    )

  return (phase,)


class _Transfer(NamedTuple):
  """What a step computes with."""

  recipe: Recipe
  pair: pairs.Pair
  matching: matching_lib.Matching
  weight: float
  look_ahead: int
  optimizer: optax.GradientTransformation
  meta: optax.GradientTransformation

  def step(
    self,
    state: TransferState,
    frozen: Variables,
    batches: dict[str, Batch],
    rng: Array,
    static: Any,
  ) -> tuple[TransferState, Metrics]:
    """The student's step, then that of the weights."""
    del static
    losses = self.losses(state, frozen, batches['train'], rng)

    def total(params: PyTree) -> tuple[Array, Any]:
      (label, matched), aux = losses(params, state.weights)
      return label + matched, (matched, *aux)

    params = _params(state.variables)
    (loss, (matched, updates, metrics)), gradient = jax.value_and_grad(
      total, has_aux=True
    )(params)
    change, after = optax.with_extra_args_support(self.optimizer).update(
      gradient, state.optimizer, params, value=loss
    )
    params = optax.apply_updates(params, change)
    ahead, slope = self.look(losses, params, after, state.weights)
    turn, weights_state = self.meta.update(
      slope, state.weights_optimizer, state.weights
    )
    variables = _with(state.variables, params)
    variables['student'] = staged.merge(variables['student'], updates)
    new = TransferState(
      state.step + 1,
      variables,
      after,
      optax.apply_updates(state.weights, turn),
      weights_state,
    )
    found = {'matching': matched, 'label_loss_ahead': ahead, 'loss': loss}
    return new, {**metrics, **found}

  def losses(
    self, state: TransferState, frozen: Variables, batch: Batch, rng: Array
  ) -> Losses:
    """The losses on a batch; no statistics but those of the batch are used."""
    image = {'image': batch['image']}
    theirs, _ = staged.run(self.pair.teacher, frozen, image)
    given = {f'teacher/{k}': v for k, v in theirs.items()}

    def found(params: PyTree, weights: Variables) -> Any:
      variables = _with(state.variables, params)
      ours, updates = staged.run(
        self.pair.student,
        variables['student'],
        image,
        train=True,
        rngs={'dropout': rng},
      )
      features = {f'student/{k}': v for k, v in ours.items()} | given
      matched = matching_lib.loss(
        self.matching, variables['helpers'], weights, features
      )
      answer = ours[staged.output(self.pair.student)]
      label = self.recipe.task.loss(answer, batch).mean()
      metrics = joint.score(self.recipe, answer, batch)
      return (label, self.weight * matched), (updates, metrics)

    return found

  def look(
    self, losses: Losses, params: PyTree, state: Any, weights: Variables
  ) -> tuple[Array, Variables]:
    """The loss of labels behind the steps, and its slope in the weights."""

    def behind(weights: Variables) -> Array:
      def label(params: PyTree) -> Array:
        return losses(params, weights)[0][0]

      def match(params: PyTree) -> Array:
        return losses(params, weights)[0][1]

      path = [match] * self.look_ahead + [label]
      return label(bilevel.descend(path, self.optimizer, state, params)[0])

    return jax.value_and_grad(behind)(weights)


def _adam(num_steps: int) -> optax.GradientTransformation:
  del num_steps
  return optax.chain(optax.add_decayed_weights(1e-4), optax.adam(1e-4))


def _params(variables: dict[str, Variables]) -> PyTree:
  return {k: v['params'] for k, v in variables.items()}


def _with(
  variables: dict[str, Variables], params: PyTree
) -> dict[str, Variables]:
  return {
    k: staged.merge(v, {'params': params[k]}) for k, v in variables.items()
  }
