"""Recipes: how phases are trained, from a data set and a few choices."""

import jax

from jaxdistill import optimizers
from jaxdistill.data import augment as augment_lib
from jaxdistill.data import batches
from jaxdistill.networks import staged
from jaxdistill.types import Augment, Dataset, Recipe, Stream, Task


def recipe(
  dataset: Dataset,
  task: Task,
  *,
  epochs: float,
  batch_size: int = 64,
  optimizer: optimizers.Optimizer | None = None,
  augment: Augment | None = None,
  subset: str = 'train',
) -> Recipe:
  """How to train on a data set.

  Args:
    dataset: the data; images are standardised after augmentation.
    task: what its labels mean.
    epochs: passes over the subset.
    batch_size: of all devices together.
    optimizer: num_steps -> optimiser; None: SGD with a cosine from 0.1.
    augment: of uint8 images; None: none. Standardisation stands behind it;
      what mixes images makes the labels `[B, num_classes]`.
    subset: the split to train on.

  Raises:
    UsageError: there is no such split, or it has fewer examples than a batch,
      or is the test split.
  """
  trainable = [name for name in dataset.splits if name != 'test']
  if subset not in trainable:
    raise staged.unknown('subset to train on', subset, trainable)
  size = len(dataset.splits[subset]['label'])
  prepare = preprocess(dataset, augment or augment_lib.none())
  augment = augment_lib.chain(
    augment or augment_lib.none(),
    augment_lib.standardize(dataset.mean, dataset.std),
  )
  held_out = len(dataset.splits.get('validation', {}).get('label', ()))
  most = min(batch_size, held_out)
  return Recipe(
    epochs=epochs,
    steps_per_epoch=batches.steps_per_epoch(size, batch_size),
    optimizer=optimizer or optimizers.sgd(optimizers.cosine()),
    stream=Stream(batch_size, augment, subset=subset),
    task=task,
    example=example(dataset, augment, batch_size),
    examples={k: dataset.splits[subset][k] for k in ('index', 'label')},
    validation=Stream(most, prepare, subset='validation'),
    validation_steps=held_out // most if most else 0,
  )


def preprocess(dataset: Dataset, augment: Augment) -> Augment:
  """What evaluation does to images that training augments.

  It takes the middle of the image where augmentation changes its size, and
  standardises.
  """
  shape = example(dataset, augment, 1)['image'].shape
  return augment_lib.chain(
    augment_lib.center(shape[1], shape[2]),
    augment_lib.standardize(dataset.mean, dataset.std),
  )


def example(
  dataset: Dataset, augment: Augment, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of an augmented batch."""
  batch = {
    k: jax.ShapeDtypeStruct((batch_size, *v.shape[1:]), v.dtype)
    for k, v in dataset.splits['train'].items()
  }
  return jax.eval_shape(augment, jax.random.key(0), batch)
