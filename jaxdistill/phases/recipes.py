"""Recipes, which say how phases are trained, and new models for them."""

import jax
import jax.numpy as jnp

from jaxdistill import optimizers
from jaxdistill.core import checks, random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Augment,
  Dataset,
  Metric,
  Model,
  Network,
  Recipe,
  Stream,
  Task,
)
from jaxdistill.data.loading import batches
from jaxdistill.data.transforms import augment as augment_lib
from jaxdistill.networks import graph
from jaxdistill.tasks import classification


def recipe(
  dataset: Dataset,
  task: Task | None = None,
  *,
  epochs: float,
  batch_size: int = 64,
  optimizer: optimizers.Optimizer | None = None,
  augment: Augment | None = None,
  subset: str = 'train',
) -> Recipe:
  """Makes a recipe: everything about training except the loss.

  Args:
    dataset: the data. Images are standardised after augmentation.
    task: what the targets mean; None means classification.
    epochs: the number of passes over the subset; 0 trains nothing.
    batch_size: the number of examples in a batch, over all devices together.
    optimizer: num_steps -> optimizer; None means SGD with a cosine schedule
      that starts at 0.1.
    augment: the augmentation of uint8 images, without standardisation; None
      means no augmentation. One that mixes images turns the labels into
      `[B, num_classes]`.
    subset: the split to train on.

  Raises:
    UsageError: the epochs are negative, the batch size is not a whole number
      of at least 1, the split does not exist, is the test split, or has fewer
      examples than a batch, or the data do not have the targets of the task.
  """
  checks.number('epochs', epochs, at_least=0)
  batch_size = checks.integer('batch_size', batch_size)
  task = task or classification()
  check_task(task, dataset)
  trainable = [name for name in dataset.splits if name != 'test']
  if subset not in trainable:
    raise checks.unknown('subset to train on', subset, trainable)
  split = dataset.splits[subset]
  prepare = preprocess(dataset, augment or augment_lib.none(), task)
  augment = augment_lib.chain(
    augment or augment_lib.none(), *_last(dataset, task)
  )
  held_out = len(dataset.splits.get('validation', {}).get('image', ()))
  validation_batch = min(batch_size, held_out)
  return Recipe(
    epochs=epochs,
    steps_per_epoch=batches.steps_per_epoch(len(split['image']), batch_size),
    optimizer=optimizer or optimizers.sgd(optimizers.cosine()),
    stream=Stream(batch_size, augment, subset=subset),
    task=task,
    example=example(dataset, augment, batch_size),
    examples={k: v for k, v in split.items() if len(v.shape) < 3},
    validation=Stream(validation_batch, prepare, subset='validation'),
    validation_steps=held_out // validation_batch if validation_batch else 0,
  )


def check_task(task: Task, dataset: Dataset) -> None:
  """Checks that a data set suits a task.

  Args:
    task: the task.
    dataset: the data.

  Raises:
    UsageError: the score of the task is not a `Metric`, a split lacks a target
      of the task, or the targets are not valid.
  """
  if not isinstance(task.score, Metric):
    raise UsageError(
      f"task {task.name!r}: expected a Metric as score, such as Metric('top1'),"
      f' got {task.score!r}'
    )
  for name, split in dataset.splits.items():
    for target in task.targets:
      if target not in split:
        raise UsageError(
          f'data: expected {target!r}, which the task {task.name!r} reads, in '
          f'the split {name!r}, got {", ".join(split)}'
        )
  task.check(dataset)


def with_augment(recipe: Recipe, augment: Augment) -> Recipe:
  """Returns a recipe with another augmentation of the same images.

  Args:
    recipe: the recipe.
    augment: the augmentation of uint8 images, without standardisation. Images
      of another size are cropped to that of the recipe.

  Raises:
    UsageError: the task changes the images, whose shape is then not known.
  """
  if recipe.task.prepare is not None:
    raise UsageError(
      f'augment: the task {recipe.task.name!r} changes the images after the '
      'augmentation, which cannot be exchanged then'
    )
  whole = augment_lib.chain(augment, recipe.validation.augment)
  image = jax.ShapeDtypeStruct(recipe.example['image'].shape, jnp.uint8)  # type: ignore[no-untyped-call,unused-ignore]
  raw = {**recipe.example, 'image': image}
  example = jax.eval_shape(whole, jax.random.key(0), raw)
  return recipe._replace(
    stream=recipe.stream._replace(augment=whole), example=example
  )


def new_model(network: Network, recipe: Recipe, *, seed: int = 0) -> Model:
  """Gives a network new weights, for images of the recipe's shape.

  Args:
    network: the network.
    recipe: says which shape images have.
    seed: chooses the weights.
  """
  image = {'image': recipe.example['image']}
  return Model(network, graph.init(network, random.model_key(seed), image))


def preprocess(
  dataset: Dataset, augment: Augment, task: Task | None = None
) -> Augment:
  """Returns the preparation of images for evaluation.

  It takes the place of augmentation: it crops the centre of each image if the
  augmentation changes the size of images, and standardises.

  Args:
    dataset: gives the mean, the standard deviation and the shape of images.
    augment: the augmentation of training.
    task: what the targets mean; None means classification. If it evaluates
      whole images, they are not cropped.
  """
  last = _last(dataset, task)
  if task is not None and task.whole_images:
    return augment_lib.chain(*last) if len(last) > 1 else last[0]
  shape = example(dataset, augment, 1)['image'].shape
  return augment_lib.chain(augment_lib.center(shape[1], shape[2]), *last)


def _last(dataset: Dataset, task: Task | None) -> list[Augment]:
  """Returns the last steps of preprocessing, in training and evaluation."""
  standardize = augment_lib.standardize(dataset.mean, dataset.std)
  prepare = None if task is None else task.prepare
  return [standardize, *([] if prepare is None else [prepare])]


def example(
  dataset: Dataset, augment: Augment, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes and dtypes of one augmented batch.

  Args:
    dataset: the data.
    augment: (rng, batch) -> augmented batch.
    batch_size: the number of examples.
  """
  shapes: dict[str, jax.ShapeDtypeStruct] = jax.eval_shape(
    augment,
    jax.random.key(0),
    {
      # Columns of 64 bits become arrays of 32 bits on the device.
      k: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call,unused-ignore]
        (batch_size, *v.shape[1:]), jax.dtypes.canonicalize_dtype(v.dtype)
      )
      for k, v in dataset.splits['train'].items()
    },
  )
  return shapes
