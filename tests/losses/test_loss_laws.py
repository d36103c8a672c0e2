"""Laws that hold for all losses, each tested once over the whole family."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses

B = 4
LOGITS = VECTOR = (B, 5)
MAP = (B, 4, 4, 3)
PERMUTATION = np.array([2, 0, 3, 1])


class Case(NamedTuple):
  """One loss and the laws that apply to it.

  Attributes:
    loss: a function of (student, teacher), both pytrees of arrays.
    student: the shapes of the student's arrays, a pytree.
    teacher: the shapes of the teacher's arrays; None if they are the student's.
    per_example: whether the loss has the shape `[B]` instead of a scalar's.
    frozen: whether no gradient flows to the teacher.
    differentiable: whether the gradient is that of the value, which it is not
      if a part of the loss is held constant.
    equality: 'zero' if the loss and its gradient are zero where student and
      teacher are equal, 'stationary' if only the gradient is zero, 'kink' if
      only the loss is zero (there, the gradient is the sign of a rounding
      error), or ''.
  """

  loss: Callable[[Any, Any], jax.Array]
  student: Any
  teacher: Any = None
  per_example: bool = True
  frozen: bool = True
  differentiable: bool = True
  equality: str = 'zero'


def _decoupled(student, teacher):
  return losses.decoupled_kd_loss(student, teacher, jnp.argmax(teacher, -1))


def _masked(student, teacher):
  mask = jnp.linspace(-0.5, 1.5, 48).reshape(MAP[1:])
  return losses.masked_l1_loss(student, teacher, mask)


def _margin_relu(student, teacher):
  return losses.margin_relu_loss(student, teacher, -jnp.arange(1.0, 4.0) / 4)


def _variational(student, teacher):
  return losses.variational_information_loss(student, teacher, jnp.arange(3.0))


def _regression(student, teacher):
  (s, s_logits), (t, t_logits) = student, teacher
  return losses.softmax_regression_loss(s, t, s_logits, t_logits)


# The classes of pixels; one row is ignored.
_MASK = np.array([[0, 0, 1, 1], [2, 2, 0, 1], [0, 1, 2, 0], [255] * 4])


def _pixels(student, teacher):
  mask = jnp.broadcast_to(jnp.asarray(_MASK), (len(student), 4, 4))
  return losses.pixel_soft_target_loss(student, teacher, mask)


def _variation(student, teacher):
  mask = jnp.broadcast_to(jnp.asarray(_MASK), (len(student), 4, 4))
  return losses.intra_class_variation_loss(
    student, teacher, mask, num_classes=3
  )


_BOXES = np.array([[[0, 0, 5, 9], [4, 4, 9, 9]]], np.float32)


def _focal(student, teacher):
  shape = (len(student), 2)
  return losses.focal_distillation_loss(
    student,
    teacher,
    jnp.broadcast_to(_BOXES, (*shape, 4)),
    jnp.ones(shape, bool),
    image_size=(16, 16),
    foreground=1.0,
    background=0.5,
    attention=0.5,
  )


_ROWS = np.sin(np.arange(90, dtype=np.float32)).reshape(2, 9, 5) / 2
_BANK = losses.MemoryBank(*_ROWS, np.float32(0.5), np.float32(1.5))
_NEGATIVES = np.arange(12).reshape(4, 3) % 5 + 4


def _remembered_contrast(student, teacher):
  bank = jax.tree.map(jnp.asarray, _BANK)
  loss, _ = losses.memory_contrastive_loss(
    student, teacher, bank, jnp.arange(4), jnp.asarray(_NEGATIVES)
  )
  return jnp.mean(loss)


CASES = {
  'soft_target': Case(losses.soft_target_loss, LOGITS),
  'tempered': Case(
    losses.tempered_cross_entropy, LOGITS, equality='stationary'
  ),
  'refinery': Case(losses.refinery_loss, LOGITS, equality='stationary'),
  'logit_squared_error': Case(losses.logit_squared_error, LOGITS),
  'decoupled': Case(_decoupled, LOGITS),
  'dist': Case(losses.dist_loss, LOGITS, per_example=False),
  'cosine': Case(losses.cosine_loss, VECTOR),
  'smooth_l1': Case(losses.smooth_l1_loss, VECTOR),
  'squared_distance': Case(losses.squared_distance, MAP),
  'hint': Case(losses.hint_loss, MAP),
  'normalized_l1': Case(losses.normalized_l1_loss, MAP, equality='kink'),
  'masked_l1': Case(_masked, MAP),
  'hierarchical_context': Case(losses.hierarchical_context_loss, MAP),
  'variational_information': Case(_variational, MAP, equality='stationary'),
  'softmax_regression': Case(_regression, (VECTOR, LOGITS)),
  'attention_transfer': Case(losses.attention_transfer_loss, MAP, (B, 2, 2, 5)),
  'neuron_selectivity_channels': Case(losses.neuron_selectivity_loss, MAP),
  'neuron_selectivity_positions': Case(
    losses.neuron_selectivity_loss, (B, 2, 2, 6), (B, 3, 3, 5)
  ),
  'factor_transfer': Case(losses.factor_transfer_loss, MAP, equality='kink'),
  'factor_transfer_attention': Case(
    functools.partial(losses.factor_transfer_loss, attention=True),
    MAP,
    equality='kink',
  ),
  'activation_boundary': Case(
    losses.activation_boundary_loss, MAP, equality=''
  ),
  'margin_relu': Case(_margin_relu, MAP),
  'similarity_preserving': Case(
    losses.similarity_preserving_loss, MAP, (B, 3), per_example=False
  ),
  'relational_distance': Case(
    losses.relational_distance_loss, VECTOR, (B, 3), per_example=False
  ),
  'relational_angle': Case(
    losses.relational_angle_loss, VECTOR, (B, 3), per_example=False
  ),
  'probabilistic_transfer': Case(
    losses.probabilistic_transfer_loss, VECTOR, (B, 3), per_example=False
  ),
  'correlation_congruence': Case(
    losses.correlation_congruence_loss, VECTOR, per_example=False, frozen=False
  ),
  'flow': Case(losses.flow_loss, (MAP, (B, 2, 2, 5))),
  'pixel_soft_target': Case(_pixels, MAP),
  'map_absolute_error': Case(losses.map_absolute_error, MAP),
  'channel_wise': Case(losses.channel_wise_loss, MAP),
  'focal_distillation': Case(_focal, MAP, equality='kink'),
  'intra_class_variation': Case(_variation, MAP, (B, 4, 4, 5)),
  'pairwise_similarity': Case(
    losses.pairwise_similarity_loss, MAP, (B, 2, 2, 5)
  ),
  'contrastive': Case(
    losses.contrastive_loss,
    VECTOR,
    per_example=False,
    frozen=False,
    differentiable=False,
    equality='',
  ),
  'contrastive_memory': Case(
    _remembered_contrast, VECTOR, per_example=False, frozen=False, equality=''
  ),
}


def names(**allowed):
  """Returns the names of the cases whose attributes have allowed values."""
  return [
    name
    for name, case in CASES.items()
    if all(getattr(case, k) in v for k, v in allowed.items())
  ]


def draw(shapes, seed, scale=1.0):
  """Draws normal arrays; `shapes` is a shape or a tuple of shapes."""
  if isinstance(shapes[0], tuple):
    return tuple(draw(s, seed + 7 * i, scale) for i, s in enumerate(shapes))
  rng = np.random.default_rng(seed)
  return jnp.asarray(scale * rng.normal(size=shapes), jnp.float32)


def example(name, *, seed=0):
  case = CASES[name]
  teacher = case.student if case.teacher is None else case.teacher
  return draw(case.student, seed), draw(teacher, seed + 100)


@functools.cache
def jitted(name):
  """Compiles the loss and the gradients of its sum in both arguments."""
  case = CASES[name]

  def total(student, teacher):
    loss = case.loss(student, teacher)
    return jnp.sum(loss), loss

  gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)

  def value_and_gradients(student, teacher):
    (_, loss), grads = gradients(student, teacher)
    return loss, *grads

  return jax.jit(value_and_gradients)


def largest(tree):
  return max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('name', CASES)
def test_a_compiled_loss_equals_the_eager_one(name):
  student, teacher = example(name)
  eager = CASES[name].loss(student, teacher)
  assert eager.shape == ((B,) if CASES[name].per_example else ())
  np.testing.assert_allclose(
    jitted(name)(student, teacher)[0], eager, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('name', names(frozen=[True]))
def test_no_gradient_reaches_the_teacher(name):
  _, student_grad, teacher_grad = jitted(name)(*example(name))
  assert largest(teacher_grad) == 0
  assert largest(student_grad) > 1e-3


@pytest.mark.parametrize('name', names(frozen=[False]))
def test_the_gradient_reaches_a_teacher_that_is_trained(name):
  assert largest(jitted(name)(*example(name))[2]) > 1e-3


@pytest.mark.parametrize('name', names(equality=['zero', 'kink']))
def test_the_loss_of_equal_features_is_zero(name):
  # If the shapes of student and teacher differ, the student is compared with
  # itself.
  student, _ = example(name)
  case = CASES[name]
  if case.teacher is not None:
    np.testing.assert_allclose(case.loss(student, student), 0, atol=1e-6)
    return
  loss, grad, _ = jitted(name)(student, student)
  np.testing.assert_allclose(loss, 0, atol=1e-6)
  assert case.equality == 'kink' or largest(grad) < 1e-5


@pytest.mark.parametrize('name', names(equality=['stationary']))
def test_the_gradient_at_equal_features_is_zero(name):
  student, _ = example(name)
  loss, grad, _ = jitted(name)(student, student)
  assert largest(grad) < 1e-5
  assert largest(loss) > 1e-2


@pytest.mark.parametrize('name', names(differentiable=[True]))
def test_the_gradient_equals_finite_differences(name):
  student, teacher = example(name)
  leaves, tree = jax.tree.flatten(student)
  grad = jax.tree.leaves(jitted(name)(student, teacher)[1])

  def moved(step):
    moved = jax.tree.unflatten(tree, [x + d for x, d in zip(leaves, step)])
    return np.sum(np.float64(jitted(name)(moved, teacher)[0]))

  # One direction along the gradient, where a wrong scale would show, and one
  # random direction.
  random = draw(tuple(x.shape for x in leaves), seed=50)
  for direction in grad, random:
    length = np.sqrt(sum(np.sum(np.square(d)) for d in direction))
    step = [1e-2 * np.asarray(d) / length for d in direction]
    numeric = (moved(step) - moved([-d for d in step])) / 2
    analytic = sum(np.sum(np.float64(g * d)) for g, d in zip(grad, step))
    largest = np.sqrt(sum(np.sum(np.square(g)) for g in grad)) * 1e-2
    np.testing.assert_allclose(numeric, analytic, rtol=0, atol=1e-2 * largest)


def constants(tree):
  return jax.tree.map(jnp.ones_like, tree)


def zeros(tree):
  return jax.tree.map(jnp.zeros_like, tree)


def huge(tree):
  return jax.tree.map(lambda x: 1e4 * x, tree)


def opposite(tree):
  """Returns the first half of the examples, followed by their negatives."""
  return jax.tree.map(
    lambda x: jnp.concatenate([x[: B // 2], -x[: B // 2]]), tree
  )


DEGENERATE = (zeros, constants, huge, opposite, lambda tree: tree)


@pytest.mark.parametrize('name', CASES)
def test_value_and_gradient_are_finite_everywhere(name):
  student, teacher = example(name)
  inputs = [(f(student), g(teacher)) for f in DEGENERATE for g in DEGENERATE]
  if CASES[name].teacher is None:
    inputs += [(f(student), f(student)) for f in DEGENERATE]
  for pair in inputs:
    for leaf in jax.tree.leaves(jitted(name)(*pair)):
      assert np.all(np.isfinite(leaf))


def same_examples(tree):
  """Returns the first example, repeated."""
  return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), tree)


def flat_examples(tree):
  """Returns a different constant in each example."""
  ends = {2: np.s_[:, :1], 4: np.s_[:, :1, :1, :1]}
  return jax.tree.map(lambda x: 0 * x + x[ends[x.ndim]], tree)


def tiny_spread(tree):
  """Returns constants but for rounding in float32."""
  return jax.tree.map(lambda x: (1 + 1e-7 * x).astype(x.dtype), tree)


SPREADLESS = (zeros, constants, same_examples, flat_examples, tiny_spread)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('name', CASES)
def test_features_without_spread_have_no_steep_gradient(name, dtype):
  student, teacher = jax.tree.map(lambda x: x.astype(dtype), example(name))
  usual = largest(jitted(name)(student, teacher)[1])
  for flat in SPREADLESS:
    for target in teacher, flat(teacher):
      loss, grad, _ = jitted(name)(flat(student), target)
      assert np.all(np.isfinite(loss))
      assert largest(grad) <= 30 * usual  # false for NaN too


@pytest.mark.parametrize('scale', [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize('tau', [1.0, 4.0])
def test_dist_of_nearly_flat_logits_has_no_steep_gradient(scale, tau):
  """A head whose weights begin near zero would explode in its first step."""
  student, teacher = example('dist')
  gradient = jax.grad(lambda s: losses.dist_loss(s, teacher, tau=tau))
  usual = largest(gradient(student))
  assert largest(gradient(scale * student)) <= 200 * usual


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('name', names(equality=['zero'], teacher=[None]))
def test_equal_features_of_any_type_have_no_loss_and_no_gradient(name, dtype):
  student = jax.tree.map(lambda x: x.astype(dtype), example(name)[0])
  # The correlation with a constant is 0, and so the loss of DIST is not.
  constant = () if name == 'dist' else (zeros(student), constants(student))
  for equal in student, *constant:
    loss, grad, _ = jitted(name)(equal, equal)
    assert largest(loss) < 1e-6 and largest(grad) < 1e-5


@pytest.mark.parametrize('name', CASES)
def test_bfloat16_is_accumulated_in_float32(name):
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), example(name))
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  loss = CASES[name].loss(*narrow)
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, jitted(name)(*wide)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', names(per_example=[True]))
def test_permuted_examples_permute_the_losses(name):
  student, teacher = example(name)
  loss = jitted(name)(student, teacher)[0]
  permuted = jax.tree.map(lambda x: x[PERMUTATION], (student, teacher))
  np.testing.assert_allclose(
    jitted(name)(*permuted)[0], loss[PERMUTATION], rtol=1e-5
  )
  assert float(jnp.std(loss)) > 1e-5


@pytest.mark.parametrize('name', names(per_example=[True]))
def test_the_loss_of_an_example_does_not_depend_on_other_examples(name):
  pair = example(name)
  replaced = jax.tree.map(
    lambda x, y: np.concatenate([x[:1], y[1:]]), pair, example(name, seed=1)
  )
  before, after = (
    np.array(jitted(name)(*inputs)[0]) for inputs in (pair, replaced)
  )
  np.testing.assert_allclose(after[0], before[0], rtol=1e-5)
  assert np.all(after[1:] != before[1:])


@pytest.mark.parametrize('name', CASES)
def test_batches_of_different_size_are_refused(name):
  student, teacher = example(name)
  short = jax.tree.map(lambda x: x[:-1], teacher)
  with pytest.raises(AssertionError):
    CASES[name].loss(student, short)


@pytest.mark.parametrize(
  'name',
  [
    name
    for name in names(student=[LOGITS, MAP], teacher=[None])
    if not name.startswith('neuron_selectivity')
  ],
)
def test_features_of_different_width_are_refused(name):
  student, teacher = example(name)
  with pytest.raises(AssertionError):
    CASES[name].loss(student, teacher[..., :-1])


def test_every_public_loss_has_a_case():
  tested = {
    getattr(case.loss, 'func', case.loss).__name__ for case in CASES.values()
  }
  wrapped = {
    'decoupled_kd_loss',
    'focal_distillation_loss',
    'intra_class_variation_loss',
    'margin_relu_loss',
    'masked_l1_loss',
    'memory_contrastive_loss',
    'pixel_soft_target_loss',
    'softmax_regression_loss',
    'variational_information_loss',
  }
  # These compare outputs with targets instead of a teacher, and have tests of
  # their own.
  of_targets = {
    *('arcface_loss', 'cosface_loss', 'focal_loss', 'generalized_iou_loss'),
  }
  public = {
    name
    for name in {*losses.__all__} - of_targets
    if name.endswith(('_loss', '_distance', '_error', '_entropy'))
  }
  assert public == {name for name in tested if name[0] != '_'} | wrapped
