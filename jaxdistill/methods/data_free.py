"""Distillation without data: on noise, and on images made from the teacher.

Nayak et al., Zero-Shot Knowledge Distillation in Deep Networks, 2019,
https://arxiv.org/abs/1905.08114; the rivals in Table 4 of Shao et al.,
Neighbourhood Distillation, 2020, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import terms
from jaxdistill.methods import joint
from jaxdistill.networks import arguments, staged
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Method,
  Model,
  Phase,
  PyTree,
  Recipe,
  UsageError,
)


def gaussian_kd(
  recipe: Recipe,
  *,
  temperature: float = 2.5,
  frozen_statistics: bool = False,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """The teacher's softened classes of images that are Gaussian noise.

  The first term of Equation (3) of Neighbourhood Distillation, whose second
  needs labels. The images are standard normal after standardisation; of the
  data only the shape is used.

  Args:
    recipe: how; but its augmentation is not used.
    temperature: `T`.
    frozen_statistics: see `joint`; so a student is fine-tuned that real
      images are to be fed to.
    student: the role that trains.
    teacher: the role it learns from.
  """
  image = recipe.example['image']

  def noise(rng: Array, batch: Batch) -> Batch:
    drawn = jax.random.normal(rng, image.shape, image.dtype)
    return {**batch, 'image': drawn}

  stream = recipe.stream._replace(augment=noise)
  return joint.joint(
    recipe._replace(stream=stream),
    terms={'tempered': terms.tempered(temperature=temperature)},
    label_weight=0.0,
    frozen_statistics=frozen_statistics,
    student=student,
    teacher=teacher,
    name='gaussian_kd',
  )


def zero_shot(
  recipe: Recipe,
  *,
  count: int = 40000,
  iterations: int = 1500,
  batch: int = 100,
  rate: float = 1e-3,
  scales: Sequence[float] = (1.0, 0.1),
  temperature: float = 20.0,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """ZSKD: images that give the teacher likely answers teach the student.

    image = argmin CE(softmax(teacher(image) / T), y),  y ~ Dirichlet(b * c_k)

  c_k are the similarities of class k's weights in the teacher's last layer to
  those of all classes, scaled to [0, 1]; each b serves an equal share of the
  images, as in the paper (the released code makes all b the same). The student
  then learns the softened classes of these images alone.

  Args:
    recipe: how the student learns; the paper: Adam at 1e-3.
    count: how many images.
    iterations: of Adam for each of them.
    batch: how many are made at a time; divides `count`.
    rate: of Adam.
    scales: b.
    temperature: `T`.
    student: the role that trains.
    teacher: the role it learns from.

  Raises:
    UsageError: `batch` does not divide `count`, or a number is none.
  """
  for name, value in (('count', count), ('iterations', iterations)):
    arguments.whole(name, value)
  if count % arguments.whole('batch', batch):
    raise UsageError(f'batch: {batch} does not divide count, {count}')
  for name, values in (
    ('scales', tuple(scales)),
    ('rate', (rate,)),
    ('temperature', (temperature,)),
  ):
    if not values or not all(0 < value < math.inf for value in values):
      raise UsageError(f'{name}: wanted numbers above 0, got {values}')
  made = _Impressions(
    count, iterations, batch, rate, tuple(scales), temperature
  )
  stream = recipe.stream._replace(source='impressions')
  steps_per_epoch = count // stream.batch_size
  if not steps_per_epoch:
    raise UsageError(
      f'count: {count} images are fewer than batch_size, {stream.batch_size}'
    )
  learning = joint.joint(
    recipe._replace(stream=stream, steps_per_epoch=steps_per_epoch),
    terms={'tempered': terms.tempered(temperature=temperature)},
    label_weight=0.0,
    student=student,
    teacher=teacher,
    name='zero_shot',
  )
  return (lambda carry: _impressions(made, recipe, carry, teacher), *learning)


class _Impressions(NamedTuple):
  """How images are made; see `zero_shot`."""

  images: int
  iterations: int
  batch: int
  rate: float
  scales: tuple[float, ...]
  temperature: float


class ImpressionState(NamedTuple):
  """State of the phase that makes images.

  Attributes:
    step: how many were taken, int32.
    images: those made so far, uint8 `[N, H, W, C]`.
    labels: the class whose Dirichlet each is drawn from, int32 `[N]`.
    image: the batch being made `[batch, H, W, C]`.
    target: its soft targets `[batch, num_classes]`.
    label: its classes `[batch]`.
    adam: of the batch.
  """

  step: Array
  images: Array
  labels: Array
  image: Array
  target: Array
  label: Array
  adam: optax.OptState


def _impressions(
  made: _Impressions, recipe: Recipe, carry: Carry, teacher: str
) -> Phase:
  """Puts images that were made from the teacher into the carry."""
  network = joint.model_in(carry, teacher).network
  optimizer = optax.adam(made.rate)
  shape = (made.batch, *recipe.example['image'].shape[1:])
  weights = _class_weights(carry[teacher])
  classes = weights.shape[-1]

  def init(rng: Array, carry: Carry) -> tuple[ImpressionState, PyTree]:
    del rng
    image = jnp.zeros(shape)
    state = ImpressionState(
      jnp.zeros((), jnp.int32),
      jnp.zeros((made.images, *shape[1:]), jnp.uint8),
      jnp.zeros((made.images,), jnp.int32),
      image,
      jnp.zeros((made.batch, classes)),
      jnp.zeros((made.batch,), jnp.int32),
      optimizer.init(image),
    )
    return state, carry[teacher].variables

  def begin(state: ImpressionState, variables: PyTree, rng: Array):
    """A new batch: uniform images and drawn targets."""
    first, second, third = jax.random.split(rng, 3)
    label = jax.random.randint(first, (made.batch,), 0, classes)
    number = state.step // made.iterations
    scale = jnp.asarray(made.scales)[number % len(made.scales)]
    similar = _similarities(_class_weights(Model(network, variables)))
    target = jax.random.dirichlet(second, scale * similar[label] + 1e-4)
    image = jax.random.uniform(third, shape)
    return state._replace(
      image=image, target=target, label=label, adam=optimizer.init(image)
    )

  def step(state, frozen, batches, rng, static):
    del batches, static
    state = jax.lax.cond(
      state.step % made.iterations == 0,
      lambda: begin(state, frozen, rng),
      lambda: state,
    )

    def loss_of(image: Array) -> Array:
      raw = {'image': 255.0 * image}
      ready = recipe.validation.augment(rng, raw)['image']
      features, _ = staged.run(network, frozen, {'image': ready})
      logits = features[staged.output(network)] / made.temperature
      return optax.softmax_cross_entropy(logits, state.target).mean()

    # Adam does not see the scale: the mean is as good as each image's own.
    loss, gradient = jax.value_and_grad(loss_of)(state.image)
    updates, adam = optimizer.update(gradient, state.adam)
    image = _rescaled(state.image + updates)
    start = state.step // made.iterations * made.batch
    done = jnp.round(255.0 * image).astype(jnp.uint8)
    return state._replace(
      step=state.step + 1,
      images=jax.lax.dynamic_update_slice_in_dim(state.images, done, start, 0),
      labels=jax.lax.dynamic_update_slice_in_dim(
        state.labels, state.label, start, 0
      ),
      image=image,
      adam=adam,
    ), {'loss': loss}

  def finish(state: ImpressionState, frozen: PyTree, carry: Carry) -> Carry:
    del frozen
    images = {
      'image': state.images,
      'label': state.labels,
      'index': jnp.arange(made.images, dtype=jnp.int32),
    }
    return {**carry, 'impressions': images}

  num_steps = made.iterations * (made.images // made.batch)
  return Phase('impressions', num_steps, {}, init, step, finish)


def _class_weights(teacher: Model) -> Any:
  """Of the last layer, `[C, num_classes]`.

  Raises:
    UsageError: the last stage is no linear layer.
  """
  name = staged.output(teacher.network)
  own = jax.tree.leaves(teacher.variables['params'].get(name, {}))
  kernels = [x for x in own if len(x.shape) == 2]
  if len(kernels) != 1:
    raise UsageError(
      f"zero_shot: the teacher's last stage {name!r} is no single linear layer"
    )
  return kernels[0]


def _similarities(weights: Array) -> Array:
  """Cosines of the classes' weights, each row scaled to [0, 1]."""
  columns = weights / jnp.linalg.norm(weights, axis=0, keepdims=True)
  found = jnp.einsum('dk,dl->kl', columns, columns, precision='highest')
  low = found.min(1, keepdims=True)
  return (found - low) / (found.max(1, keepdims=True) - low)


def _rescaled(image: Array) -> Array:
  """Each image brought to [0, 1]."""
  axes = (1, 2, 3)
  low = image.min(axes, keepdims=True)
  span = image.max(axes, keepdims=True) - low
  return (image - low) / jnp.maximum(span, 1e-12)
