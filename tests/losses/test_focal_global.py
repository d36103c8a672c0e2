"""The focal part of FGD, against the paper's equations as loops in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

SIZE = (30, 60)
# Two images of three rows each. Boxes overlap, end at the border of the image,
# have no area, or do not count; the second image has none.
BOXES = np.array(
  [
    [[0, 0, 30, 20], [5, 10, 11, 31], [4, 40, 4, 40]],
    [[0, 0, 30, 60], [3, 3, 9, 9], [1, 1, 2, 2]],
  ],
  np.float32,
)
IS_BOX = np.array([[True, True, True], [False, False, False]])
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 2, 4, 7, 3)).astype(np.float32)
WEIGHTS = {'foreground': 0.7, 'background': 0.4, 'attention': 0.3}


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def attention(x, temperature):
  height, width, channels = x.shape
  places = softmax(np.abs(x).mean(2).ravel() / temperature)
  per_channel = softmax(np.abs(x).mean((0, 1)) / temperature)
  return (
    height * width * places.reshape(height, width),
    channels * per_channel,
  )


def expected(student, teacher, boxes, temperature):
  """The loss of one image, whose boxes all count."""
  height, width, _ = student.shape
  inside = np.zeros((height, width))
  for top, left, bottom, right in boxes:
    rows = range(
      math.floor(top * height / SIZE[0]), math.ceil(bottom * height / SIZE[0])
    )
    columns = range(
      math.floor(left * width / SIZE[1]), math.ceil(right * width / SIZE[1])
    )
    rows, columns = (range(x.start, x.stop + 1) for x in (rows, columns))
    for row in rows:
      for column in columns:
        if row < height and column < width:
          area = len(rows) * len(columns)
          inside[row, column] = max(inside[row, column], 1 / area)
  outside = (inside == 0) / max((inside == 0).sum(), 1)
  places, channels = attention(teacher, temperature)
  student_places, student_channels = attention(student, temperature)
  square = (student - teacher) ** 2 * places[..., None] * channels
  return (
    0.7 * (square * inside[..., None]).sum()
    + 0.4 * (square * outside[..., None]).sum()
    + 0.3 * np.abs(student_places - places).sum()
    + 0.3 * np.abs(student_channels - channels).sum()
  )


@pytest.mark.parametrize('temperature', [0.5, 2.0])
def test_the_loss_is_that_of_the_paper(temperature):
  loss = losses.focal_distillation_loss(
    *map(jnp.asarray, (STUDENT, TEACHER, BOXES, IS_BOX)),
    image_size=SIZE,
    temperature=temperature,
    **WEIGHTS,
  )
  reference = [
    expected(*maps, boxes[is_box], temperature)
    for *maps, boxes, is_box in zip(STUDENT, TEACHER, BOXES, IS_BOX)
  ]
  np.testing.assert_allclose(loss, reference, rtol=1e-5)


def test_an_image_that_one_box_covers_has_no_background():
  loss = losses.focal_distillation_loss(
    *map(jnp.asarray, (STUDENT, TEACHER)),
    jnp.tile(jnp.float32([[0, 0, *SIZE]]), (2, 1, 1)),
    jnp.ones((2, 1), bool),
    image_size=SIZE,
    foreground=0.0,
    attention=0.0,
  )
  np.testing.assert_array_equal(loss, 0)


def test_data_without_room_for_boxes_are_all_background():
  boxes, is_box = jnp.zeros((2, 0, 4)), jnp.zeros((2, 0), bool)
  empty, absent = (
    jax.jit(
      lambda *x: losses.focal_distillation_loss(*x, image_size=SIZE, **WEIGHTS)
    )(STUDENT, TEACHER, *x)
    for x in ((boxes, is_box), (BOXES, np.zeros((2, 3), bool)))
  )
  np.testing.assert_allclose(empty, absent, rtol=1e-6)


def test_a_negative_weight_is_refused():
  with pytest.raises(UsageError, match='background: expected'):
    losses.focal_distillation_loss(
      *map(jnp.asarray, (STUDENT, TEACHER, BOXES, IS_BOX)),
      image_size=SIZE,
      background=-1.0,
    )
