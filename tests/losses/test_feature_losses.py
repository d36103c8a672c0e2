"""Losses on features: values computed by hand and by a plain transcription."""

import functools
import math

import jax
import numpy as np
import pytest

from jaxdistill import losses

B, H, W, C = 4, 4, 4, 3


@pytest.fixture(scope='module')
def maps():
  rng = np.random.default_rng(5)
  return rng.normal(size=(B, H, W, C)), rng.normal(size=(B, H, W, C))


def call(loss, *arrays, **choices):
  # Compiling the whole loss takes less time than running it operation by
  # operation.
  function = jax.jit(functools.partial(loss, **choices))
  return function(*(np.asarray(x, np.float32) for x in arrays))


def one_by_two(first, second):
  """Makes a map of one example and 1 x 2 positions from lists of channels."""
  return np.array([[[first, second]]])


def entries(x):
  return [float(v) for v in np.ravel(x)]


def unit(values):
  length = math.sqrt(sum(v * v for v in values))
  return [v / length for v in values]


def pooled(x, size):
  """Adaptive average pooling of `[H, W, C]`, window by window."""
  height, width, channels = x.shape
  out = np.zeros((size, size, channels))
  for i in range(size):
    rows = range(
      math.floor(i * height / size), math.ceil((i + 1) * height / size)
    )
    for j in range(size):
      columns = range(
        math.floor(j * width / size), math.ceil((j + 1) * width / size)
      )
      for c in range(channels):
        window = [x[a, b, c] for a in rows for b in columns]
        out[i, j, c] = sum(window) / len(window)
  return out


def attention(x):
  values = []
  for i in range(x.shape[0]):
    for j in range(x.shape[1]):
      values.append(sum(v * v for v in x[i, j]) / x.shape[2])
  return unit(values)


def mean(values):
  values = list(values)
  return sum(values) / len(values)


def test_squared_distance_by_hand():
  # The differences are (1, 2) and (0, 1), the squares 1 + 4 + 0 + 1.
  student = one_by_two([1.0, 2.0], [0.0, 1.0])
  teacher = np.zeros_like(student)
  for reduction, expected in [('sum', 6), ('mean', 1.5), ('position_mean', 3)]:
    loss = call(losses.squared_distance, student, teacher, reduction=reduction)
    np.testing.assert_allclose(loss, [expected])


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'position_mean'])
def test_squared_distance_equals_its_formula(maps, reduction):
  divisor = {'mean': H * W * C, 'sum': 1, 'position_mean': H * W}[reduction]
  expected = [
    sum((a - b) ** 2 for a, b in zip(entries(s), entries(t))) / divisor
    for s, t in zip(*maps)
  ]
  loss = call(losses.squared_distance, *maps, reduction=reduction)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_hint_loss_by_hand():
  # (1 + 4 + 0 + 1) / 4
  student = one_by_two([1.0, 2.0], [0.0, 1.0])
  loss = call(losses.hint_loss, student, np.zeros_like(student))
  np.testing.assert_allclose(loss, [1.5])


def test_hint_loss_equals_its_formula(maps):
  expected = mean((a - b) ** 2 for a, b in zip(*map(entries, maps)))
  loss = call(losses.hint_loss, *maps)
  np.testing.assert_allclose(np.mean(loss), expected, rtol=1e-5)


def test_normalized_l1_loss_by_hand():
  # (3, 4) / 5 against (1, 0): |0.6 - 1| + |0.8 - 0| = 1.2
  student, teacher = np.array([[3.0, 4.0]]), np.array([[7.0, 0.0]])
  loss = call(losses.normalized_l1_loss, student, teacher, reduction='sum')
  np.testing.assert_allclose(loss, [1.2], rtol=1e-6)
  loss = call(losses.normalized_l1_loss, student, teacher)
  np.testing.assert_allclose(loss, [0.6], rtol=1e-6)


@pytest.mark.parametrize('loss', ['normalized_l1_loss', 'factor_transfer_loss'])
def test_normalized_l1_losses_equal_their_formula(maps, loss):
  expected = [
    mean(abs(a - b) for a, b in zip(unit(entries(s)), unit(entries(t))))
    for s, t in zip(*maps)
  ]
  np.testing.assert_allclose(
    call(getattr(losses, loss), *maps), expected, rtol=1e-5
  )


def test_masked_l1_loss_by_hand():
  # The weights 1 - relu(mask) are 0, 1/2, 1 and -1/2, the differences are 2,
  # and the absolute values of the products are 0 + 1 + 2 + 1.
  student, teacher = np.zeros((1, 4)), np.full((1, 4), -2.0)
  mask = np.array([1.0, 0.5, -3.0, 1.5])
  loss = call(losses.masked_l1_loss, student, teacher, mask, reduction='sum')
  np.testing.assert_allclose(loss, [4.0])
  loss = call(losses.masked_l1_loss, student, teacher, mask)
  np.testing.assert_allclose(loss, [1.0])


def test_masked_l1_loss_equals_its_formula(maps):
  mask = np.random.default_rng(6).normal(size=(H, W, C))
  expected = [
    mean(
      abs((1 - max(m, 0)) * (a - b))
      for m, a, b in zip(entries(mask), entries(t), entries(s))
    )
    for s, t in zip(*maps)
  ]
  loss = call(losses.masked_l1_loss, *maps, mask)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('loss', ['masked_l1_loss', 'margin_relu_loss'])
def test_no_gradient_reaches_a_mask_or_a_margin(maps, loss):
  shape = (H, W, C) if loss == 'masked_l1_loss' else (C,)
  grad = jax.grad(lambda *args: getattr(losses, loss)(*args).sum(), argnums=2)
  np.testing.assert_array_equal(call(grad, *maps, np.full(shape, 0.5)), 0)


def test_masked_l1_loss_refuses_a_mask_with_a_batch_axis(maps):
  with pytest.raises(AssertionError):
    call(losses.masked_l1_loss, *maps, np.ones((1, H, W, C)))


def test_hierarchical_context_loss_by_hand():
  # The differences on 2 x 2 positions are 1, 2, 3, 6 with the mean square 50 /
  # 4 = 12.5. Pooled to 1 x 1, the square is 3**2 = 9 with weight 1/2: (12.5 +
  # 4.5) / 1.5
  student = np.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1)
  loss = call(losses.hierarchical_context_loss, student, np.zeros_like(student))
  np.testing.assert_allclose(loss, [17 / 1.5], rtol=1e-6)


@pytest.mark.parametrize('size', [4, 7])
def test_hierarchical_context_loss_equals_its_formula(size):
  student, teacher = np.random.default_rng(7).normal(size=(2, 2, size, size, 2))
  expected = []
  for s, t in zip(student, teacher):
    loss, total, weight = np.mean((s - t) ** 2), 1.0, 1.0
    for level in (4, 2, 1):
      if level >= size:
        continue
      weight /= 2
      total += weight
      loss += weight * np.mean((pooled(s, level) - pooled(t, level)) ** 2)
    expected.append(loss / total)
  loss = call(losses.hierarchical_context_loss, student, teacher)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_hierarchical_context_loss_of_one_position_is_the_squared_error():
  student, teacher = np.random.default_rng(8).normal(size=(2, 3, 1, 1, 4))
  np.testing.assert_allclose(
    call(losses.hierarchical_context_loss, student, teacher),
    call(losses.squared_distance, student, teacher),
  )


def test_variational_information_loss_by_hand():
  # softplus(0) is log 2, so v is 0.693147 if epsilon is 0. The error is 1:
  # (1 / 0.693147 + log 0.693147) / 2 = (1.442695 - 0.366513) / 2
  loss = call(
    losses.variational_information_loss,
    np.zeros((1, 1)),
    np.ones((1, 1)),
    np.zeros(1),
    epsilon=0.0,
  )
  np.testing.assert_allclose(loss, [0.538091], rtol=1e-5)


def test_the_variance_is_at_least_epsilon():
  # softplus(-1e4) = 0: (1 / 0.01 + log 0.01) / 2 = (100 - 4.605170) / 2
  loss = call(
    losses.variational_information_loss,
    np.zeros((1, 1)),
    np.ones((1, 1)),
    np.full(1, -1e4),
    epsilon=0.01,
  )
  np.testing.assert_allclose(loss, [47.697415], rtol=1e-5)


def test_variational_information_loss_equals_its_formula(maps):
  raw = [-1.0, 0.5, 2.0]
  expected = []
  for s, t in zip(*maps):
    terms = []
    for c in range(C):
      v = math.log(1 + math.exp(raw[c])) + 1e-5
      for a, b in zip(entries(s[..., c]), entries(t[..., c])):
        terms.append(((a - b) ** 2 / v + math.log(v)) / 2)
    expected.append(mean(terms))
  loss = call(losses.variational_information_loss, *maps, np.array(raw))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_softmax_regression_loss_by_hand():
  # The features (1, 2) and 0 give 5 / 2, the logits (1, 0, 2) and 0 give 5 / 3.
  feature, logits = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, 2.0]])
  loss = call(
    losses.softmax_regression_loss, feature, 0 * feature, logits, 0 * logits
  )
  np.testing.assert_allclose(loss, [2.5 + 5 / 3], rtol=1e-6)


def test_softmax_regression_loss_equals_its_formula():
  rng = np.random.default_rng(9)
  (s, t), (s_logits, t_logits) = (
    rng.normal(size=(2, B, 6)),
    rng.normal(size=(2, B, 5)),
  )
  expected = [
    mean((s[b] - t[b]) ** 2) + 2.0 * mean((s_logits[b] - t_logits[b]) ** 2)
    for b in range(B)
  ]
  loss = call(
    losses.softmax_regression_loss,
    s,
    t,
    s_logits,
    t_logits,
    regression_weight=2.0,
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_attention_transfer_loss_by_hand():
  # The student's energies (25 + 0) / 2 and 0 become (1, 0), the teacher's 9 / 2
  # and 16 / 2 become (9, 16) / 18.3576:
  # ((1 - 0.490261)**2 + 0.871576**2) / 2 = (0.259834 + 0.759645) / 2
  student = one_by_two([5.0, 0.0], [0.0, 0.0])
  teacher = one_by_two([3.0, 0.0], [0.0, 4.0])
  loss = call(losses.attention_transfer_loss, student, teacher)
  np.testing.assert_allclose(loss, [0.509739], rtol=1e-5)


@pytest.mark.parametrize('size', [2, 3])
def test_attention_transfer_loss_equals_its_formula(maps, size):
  student = maps[0]
  teacher = np.random.default_rng(10).normal(size=(B, size, size, 5))
  expected = [
    mean((a - b) ** 2 for a, b in zip(attention(pooled(s, size)), attention(t)))
    for s, t in zip(student, teacher)
  ]
  for first, second in ((student, teacher), (teacher, student)):
    loss = call(losses.attention_transfer_loss, first, second)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_factor_transfer_loss_by_hand():
  # As for the normalised L1 loss: (|0.6 - 1| + |0.8 - 0|) / 2
  student, teacher = one_by_two([3.0], [4.0]), one_by_two([7.0], [0.0])
  loss = call(losses.factor_transfer_loss, student, teacher)
  np.testing.assert_allclose(loss, [0.6], rtol=1e-6)
  # The attentions are (9, 16) / 18.3576 and (1, 0): (0.509739 + 0.871576) / 2
  loss = call(losses.factor_transfer_loss, student, teacher, attention=True)
  np.testing.assert_allclose(loss, [0.690657], rtol=1e-5)


def test_factor_transfer_loss_of_attention_equals_its_formula(maps):
  expected = [
    mean(abs(a - b) for a, b in zip(attention(s), attention(t)))
    for s, t in zip(*maps)
  ]
  loss = call(losses.factor_transfer_loss, *maps, attention=True)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_neuron_selectivity_loss_by_hand():
  # The only channel is (1, 0) for the student and (0.6, 0.8) for the teacher.
  # The kernel of each with itself is 1, that of both 0.6**2: 1 + 1 - 2 * 0.36
  student, teacher = one_by_two([2.0], [0.0]), one_by_two([3.0], [4.0])
  loss = call(losses.neuron_selectivity_loss, student, teacher)
  np.testing.assert_allclose(loss, [1.28], rtol=1e-6)
  # Three equal channels have the same means, computed from the Gram matrix of
  # the two positions.
  student, teacher = np.tile(student, 3), np.tile(teacher, 3)
  loss = call(losses.neuron_selectivity_loss, student, teacher)
  np.testing.assert_allclose(loss, [1.28], rtol=1e-6)


@pytest.mark.parametrize('channels', [(3, 2), (7, 6)])
def test_neuron_selectivity_loss_equals_its_formula(channels):
  # With 4 positions, the first case uses Gram matrices of channels, the second
  # those of positions.
  rng = np.random.default_rng(11)
  student, teacher = (rng.normal(size=(2, 2, 2, c)) for c in channels)
  expected = []
  for s, t in zip(student, teacher):
    s = [unit(entries(s[..., c])) for c in range(s.shape[-1])]
    t = [unit(entries(t[..., c])) for c in range(t.shape[-1])]

    def kernel(x, y):
      return mean(sum(a * b for a, b in zip(p, q)) ** 2 for p in x for q in y)

    expected.append(kernel(s, s) + kernel(t, t) - 2 * kernel(s, t))
  loss = call(losses.neuron_selectivity_loss, student, teacher)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_activation_boundary_loss_by_hand():
  # Where the teacher is active, the students 2, 0.5, -1 have the losses 0,
  # 0.25, 4. Elsewhere, the students 0.5, -2 have the losses 2.25, 0.
  student = np.array([[2.0, 0.5, -1.0, 0.5, -2.0]])
  teacher = np.array([[1.0, 3.0, 1e-3, 0.0, -1.0]])
  loss = call(losses.activation_boundary_loss, student, teacher)
  np.testing.assert_allclose(loss, [6.5])


def test_activation_boundary_loss_equals_its_formula(maps):
  expected = []
  for s, t in zip(*maps):
    total = 0.0
    for u, v in zip(entries(s), entries(t)):
      if u > -0.8 and v <= 0:
        total += (u + 0.8) ** 2
      if u <= 0.8 and v > 0:
        total += (u - 0.8) ** 2
    expected.append(total)
  loss = call(losses.activation_boundary_loss, *maps, margin=0.8)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_margin_relu_loss_by_hand():
  # The margin is -1. Teacher 2 and student 0 give 4. Teacher -3 counts as -1:
  # student 1 gives 4 and student -2 gives 0. With teacher -0.5, student 0 gives
  # 0.25 and student -0.7 gives 0.
  student = np.array([[0.0], [1.0], [-2.0], [0.0], [-0.7]])
  teacher = np.array([[2.0], [-3.0], [-3.0], [-0.5], [-0.5]])
  loss = call(losses.margin_relu_loss, student, teacher, np.array([-1.0]))
  np.testing.assert_allclose(loss, [4, 4, 0, 0.25, 0])


def test_margin_relu_loss_equals_its_formula(maps):
  margin = [-0.2, -0.5, -1.0]
  expected = []
  for s, t in zip(*maps):
    total = 0.0
    for c in range(C):
      for u, v in zip(entries(s[..., c]), entries(t[..., c])):
        target = max(v, margin[c])
        if u > target or v > 0:
          total += (u - target) ** 2
    expected.append(total)
  loss = call(losses.margin_relu_loss, *maps, np.array(margin))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_batch_norm_margins_by_hand():
  # N(0, 1) gives -2 pdf(0) = -0.797885 and N(0, 4) twice that, whatever the
  # sign of the scale. N(4, 1) is hardly ever negative, so its margin is -3.
  # N(-1, 0) is the constant -1.
  margins = call(
    losses.batch_norm_margins,
    np.array([1.0, -2.0, 1.0, 0.0]),
    np.array([0.0, 0.0, 4.0, -1.0]),
  )
  np.testing.assert_allclose(
    margins, [-0.797885, -1.595769, -3.0, -1.0], rtol=1e-5
  )


def test_batch_norm_margins_are_the_means_of_the_negative_values():
  x = np.random.default_rng(12).normal(size=400_000)
  scale, bias = np.array([0.5, 1.5]), np.array([0.3, -0.7])
  sampled = [
    np.mean(y[y < 0]) for y in (s * x + b for s, b in zip(scale, bias))
  ]
  margins = call(losses.batch_norm_margins, scale, bias)
  np.testing.assert_allclose(margins, sampled, rtol=1e-2)
