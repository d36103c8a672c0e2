"""Measures augmentation on the device, as a fraction of a training step.

The step trains ResNet-20 on 32x32 images with batch size 128: cross-entropy,
its gradient and SGD with momentum, with the batch already on the device. Each
augmentation is a separate program. The programs take turns, and medians and
ratios are printed.

  python benchmarks/augmentation.py
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import networks, optimizers
from jaxdistill.core.types import Model
from jaxdistill.data.sources import arrays
from jaxdistill.data.transforms import augment, autoaugment, mixing
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification

CLASSES, SIZE = 100, 32


def augmentations():
  """Returns {name: (rng, batch) -> batch}; some include crop and flip."""
  mix = mixing.cutmix(num_classes=CLASSES)
  cutout = mixing.cutout(size=16, mean=(125.0, 123.0, 114.0))
  return {
    'crop': augment.pad_crop(4),
    'flip': augment.flip(),
    'cutmix': mix,
    'mixup': mixing.mixup(num_classes=CLASSES),
    'cutout': cutout,
    'crop, flip, cutmix': mixing.regularized(mix=mix),
    'autoaugment': autoaugment.autoaugment(),
    'randaugment': autoaugment.randaugment(),
    'crop, flip, autoaugment': mixing.regularized(
      policy=autoaugment.autoaugment()
    ),
  }


def training_step(name, batch_size):
  """Returns (a function that takes a step and waits, a batch of raw images)."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (2 * batch_size, SIZE, SIZE, 3), np.uint8)
  label = np.arange(len(image)) % CLASSES
  dataset = arrays.from_arrays(
    image, label, image[:8], label[:8], validation=0, num_classes=CLASSES
  )
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=100,
    batch_size=batch_size,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  network = networks.create(name, num_classes=CLASSES)
  inputs = {'image': recipe.example['image']}
  model = Model(network, networks.init(network, jax.random.key(0), inputs))
  phase = joint.supervised(recipe)[0]({'student': model})
  state, frozen = phase.init(jax.random.key(0), {'student': model})
  rows = {k: v[:batch_size] for k, v in dataset.splits['train'].items()}
  raw = jax.tree.map(jnp.asarray, rows)
  augmented = recipe.stream.augment(jax.random.key(0), raw)
  step = jax.jit(
    lambda state, batch: phase.step(
      state, frozen, {'train': batch}, jax.random.key(0), None
    )[0],
    donate_argnums=0,
  )
  current = [jax.tree.map(jnp.copy, state)]

  def run(index):
    del index
    current[0] = jax.block_until_ready(step(current[0], augmented))

  return run, raw


def augmenting(function, raw):
  """Returns a function that augments the batch with a key for each index."""
  compiled = jax.jit(
    lambda index, batch: function(jax.random.key(index), batch)
  )
  return lambda index: jax.block_until_ready(compiled(index, raw))


def milliseconds(function, index):
  start = time.perf_counter()
  function(index)
  return 1000 * (time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--student', default='resnet20')
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=30)
  options = parser.parse_args()
  step, raw = training_step(options.student, options.batch)
  runs = {options.student: step}
  runs |= {k: augmenting(v, raw) for k, v in augmentations().items()}
  for run in runs.values():  # compiles
    run(0)
  times = {name: [] for name in runs}
  for i in range(options.repeats):
    for name, run in runs.items():
      times[name].append(milliseconds(run, i))
  medians = {k: statistics.median(v) for k, v in times.items()}
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, batch {options.batch}')
  for name, median in medians.items():
    share = median / medians[options.student]
    print(f'{name:25} {median:9.2f} ms {share:8.1%}', flush=True)


if __name__ == '__main__':
  main()
