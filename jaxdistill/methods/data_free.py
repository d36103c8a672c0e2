"""Distillation without data: on noise, or on images made from the teacher.

Nayak et al., Zero-Shot Knowledge Distillation in Deep Networks, 2019,
https://arxiv.org/abs/1905.08114. Both methods are compared with Neighbourhood
Distillation in Table 4 of Shao et al., Neighbourhood Distillation, 2020,
https://arxiv.org/abs/2010.01189.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import objectives, phases
from jaxdistill.core import checks, random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Method,
  Model,
  Phase,
  PyTree,
  Recipe,
)
from jaxdistill.losses import numerics
from jaxdistill.networks import graph
from jaxdistill.phases import joint
from jaxdistill.tasks import requirements


def gaussian_kd(
  recipe: Recipe,
  *,
  temperature: float = 2.5,
  frozen_statistics: bool = False,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """Teaches the student the teacher's soft targets on Gaussian noise.

  The loss is the first term of Equation (3) of Neighbourhood Distillation; the
  second term needs labels. Images are standard normal after standardisation, so
  that only the shape of the data is used. It takes one phase of the recipe's
  length.

  Args:
    recipe: how the student is trained. Its augmentation is not used.
    temperature: the temperature of the soft targets.
    frozen_statistics: whether the student's batch statistics stay unchanged,
      see `joint`. Use it to fine-tune a student that will see real images.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
  """
  image = recipe.example['image']

  def noise(rng: Array, batch: Batch) -> Batch:
    drawn = jax.random.normal(rng, image.shape, image.dtype)
    return {**batch, 'image': drawn}

  stream = recipe.stream._replace(augment=noise)
  return joint.joint(
    recipe._replace(stream=stream),
    terms={'tempered': objectives.tempered(temperature=temperature)},
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
  """ZSKD: makes images from the teacher alone and distils with them.

    image = argmin CE(softmax(teacher(image) / T), y),  y ~ Dirichlet(b * c_k)

  c_k are the similarities of class k's weights in the teacher's last layer to
  those of all classes, scaled to [0, 1]. Each b is used for an equal share of
  the images, as in the paper; the released code uses one b for all. The student
  then learns the teacher's soft targets on these images only.

  It takes two phases: `iterations * count / batch` steps to make the images,
  and a phase of the recipe's length, in epochs over these images.

  Args:
    recipe: how the student is trained; the paper uses Adam at 1e-3.
    count: the number of images.
    iterations: the number of Adam steps for each batch of images.
    batch: the number of images that are made at a time; a divisor of `count`.
    rate: the learning rate of Adam for the images.
    scales: the scales b of the Dirichlet distributions; each is used for an
      equal share of the images.
    temperature: the temperature T, both for making images and for the soft
      targets.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.

  Raises:
    UsageError: a number is out of its range, `batch` does not divide `count`,
      `count` is smaller than the recipe's batch size, or the task is not one of
      classes of images.
  """
  for name, value in (('count', count), ('iterations', iterations)):
    checks.integer(name, value)
  if count % checks.integer('batch', batch):
    raise UsageError(
      f'batch: expected a divisor of count, {count}, got {batch}'
    )
  if not scales:
    raise UsageError('scales: expected at least one number above 0, got none')
  for scale in scales:
    checks.number('scales', scale, above=0)
  checks.number('rate', rate, above=0)
  numerics.check_temperature('temperature', temperature)
  requirements.image_classes('zero_shot', recipe.task)
  settings = _Impressions(
    count, iterations, batch, rate, tuple(scales), temperature
  )
  stream = recipe.stream._replace(source='impressions')
  steps_per_epoch = count // stream.batch_size
  if not steps_per_epoch:
    raise UsageError(
      f'count: expected at least batch_size, {stream.batch_size}, got {count}'
    )
  distillation = joint.joint(
    recipe._replace(stream=stream, steps_per_epoch=steps_per_epoch),
    terms={'tempered': objectives.tempered(temperature=temperature)},
    label_weight=0.0,
    student=student,
    teacher=teacher,
    name='zero_shot',
  )
  return (
    lambda carry: _impressions(settings, recipe, carry, teacher),
    *distillation,
  )


class _Impressions(NamedTuple):
  """How images are made; see the arguments of `zero_shot`."""

  images: int
  iterations: int
  batch: int
  rate: float
  scales: tuple[float, ...]
  temperature: float


class ImpressionState(NamedTuple):
  """The state of the phase that makes images.

  Attributes:
    step: the number of steps taken, int32.
    images: the finished images and zeros for the others, uint8 `[N, H, W, C]`.
    labels: the class from whose Dirichlet distribution each target was drawn,
      int32 `[N]`.
    image: the current batch of images, in [0, 1], `[batch, H, W, C]`.
    target: the soft targets of the current batch `[batch, num_classes]`.
    label: the classes of the current batch `[batch]`.
    adam: the state of Adam for the current batch.
  """

  step: Array
  images: Array
  labels: Array
  image: Array
  target: Array
  label: Array
  adam: optax.OptState


def _impressions(
  settings: _Impressions, recipe: Recipe, carry: Carry, teacher: str
) -> Phase:
  """Builds the phase that makes images and puts them into the carry."""
  network = phases.model_in(carry, teacher).network
  optimizer = optax.adam(settings.rate)
  shape = (settings.batch, *recipe.example['image'].shape[1:])
  weights = _class_weights(carry[teacher])
  classes = weights.shape[-1]

  def init(rng: Array, carry: Carry) -> tuple[ImpressionState, PyTree]:
    del rng
    image = jnp.zeros(shape)
    state = ImpressionState(
      jnp.zeros((), jnp.int32),
      jnp.zeros((settings.images, *shape[1:]), jnp.uint8),
      jnp.zeros((settings.images,), jnp.int32),
      image,
      jnp.zeros((settings.batch, classes)),
      jnp.zeros((settings.batch,), jnp.int32),
      optimizer.init(image),
    )
    return state, carry[teacher].variables

  def begin(state: ImpressionState, variables: PyTree, rng: Array):
    """Starts a new batch with uniform images and newly drawn targets."""
    label_rng, target_rng, image_rng = (
      random.step_key(rng, 'noise', i) for i in range(3)
    )
    label = jax.random.randint(label_rng, (settings.batch,), 0, classes)
    number = state.step // settings.iterations
    scale = jnp.asarray(settings.scales)[number % len(settings.scales)]
    similarities = _similarities(_class_weights(Model(network, variables)))
    target = jax.random.dirichlet(
      target_rng, scale * similarities[label] + 1e-4
    )
    image = jax.random.uniform(image_rng, shape)
    return state._replace(
      image=image, target=target, label=label, adam=optimizer.init(image)
    )

  def step(state, frozen, batches, rng, static):
    del batches, static
    state = jax.lax.cond(
      state.step % settings.iterations == 0,
      lambda: begin(state, frozen, rng),
      lambda: state,
    )

    def loss_of(image: Array) -> Array:
      pixels = {'image': 255.0 * image}
      standardized = recipe.validation.augment(rng, pixels)['image']
      features, _ = graph.run(network, frozen, {'image': standardized})
      logits = features[graph.main_output(network)] / settings.temperature
      return optax.softmax_cross_entropy(logits, state.target).mean()

    # Adam does not depend on the scale of the loss, so the mean over the batch
    # serves as well as a loss for each image.
    loss, gradient = jax.value_and_grad(loss_of)(state.image)
    updates, adam = optimizer.update(gradient, state.adam)
    image = _rescaled(state.image + updates)
    start = state.step // settings.iterations * settings.batch
    pixels = jnp.round(255.0 * image).astype(jnp.uint8)
    return state._replace(
      step=state.step + 1,
      images=jax.lax.dynamic_update_slice_in_dim(
        state.images, pixels, start, 0
      ),
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
      'index': jnp.arange(settings.images, dtype=jnp.int32),
    }
    return {**carry, 'impressions': images}

  num_steps = settings.iterations * (settings.images // settings.batch)
  return Phase('impressions', num_steps, {}, init, step, finish)


def _class_weights(teacher: Model) -> Any:
  """Returns the kernel of the teacher's last layer, `[C, num_classes]`.

  Raises:
    UsageError: the last stage is not a single linear layer.
  """
  name = graph.main_output(teacher.network)
  leaves = jax.tree.leaves(teacher.variables['params'].get(name, {}))
  kernels = [x for x in leaves if len(x.shape) == 2]
  if len(kernels) != 1:
    raise UsageError(
      f"zero_shot: expected the teacher's last stage {name!r} to be a single "
      f'linear layer, got {len(kernels)} linear layers'
    )
  return kernels[0]


def _similarities(weights: Array) -> Array:
  """Returns the cosines between classes' weights, each row scaled to [0, 1].

  A class without weights is similar to no class, and a row of equal cosines
  becomes zero.
  """
  norms = jnp.linalg.norm(weights, axis=0, keepdims=True)
  columns = weights / jnp.where(norms > 0, norms, 1.0)
  cosines = jnp.einsum('dk,dl->kl', columns, columns, precision='highest')
  low = cosines.min(1, keepdims=True)
  span = cosines.max(1, keepdims=True) - low
  return (cosines - low) / jnp.where(span > 0, span, 1.0)


def _rescaled(image: Array) -> Array:
  """Scales each image `[B, H, W, C]` linearly to [0, 1]."""
  axes = (1, 2, 3)
  low = image.min(axes, keepdims=True)
  span = image.max(axes, keepdims=True) - low
  return (image - low) / jnp.maximum(span, 1e-12)
