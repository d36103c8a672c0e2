"""Digits: a student that learns the teacher's vectors, with few labels.

  python benchmarks/embedding.py --seeds 3

A ResNet-8 learns the labels of all training images. A student of half its width
learns the teacher's pooled feature from the same images, without labels, by
`embedding`; others learn the labels of 1 %, 10 % and 100 % of the images,
without a teacher. With the same share of the labels, the vectors of the student
of `embedding` are then classified by their nearest neighbours and by a logistic
regression, or this student goes on to learn the labels ('fine-tuned'). Each
training takes the same number of steps.
"""

import argparse

import jax
import numpy as np

import jaxdistill as jd
from jaxdistill.core.types import Model
from jaxdistill.networks import graph
from jaxdistill.phases import recipes
from jaxdistill.tasks import evaluation, probing
from jaxdistill.training import log

SHARES = (0.01, 0.1, 1.0)
STEPS, BATCH = 600, 64


def main():
  """Prints one line for each student and share of labels."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--widths', type=int, nargs=3, default=(8, 16, 32))
  parser.add_argument('--rate', type=float, default=0.1)
  options = parser.parse_args()
  dataset = jd.data.digits()
  teacher = trained(
    jd.methods.supervised,
    dataset,
    jd.networks.create('resnet8', num_classes=10),
  )
  print('teacher', jd.evaluate(teacher, dataset)['top1'], flush=True)
  results = {}
  for seed in range(options.seeds):
    for name, value in measured(dataset, teacher, seed, options):
      results.setdefault(name, []).append(100 * value)
  for name, values in results.items():
    sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
    print(f'{name}: {np.mean(values):.2f} ± {sd:.2f}', flush=True)


def measured(dataset, teacher, seed, options):
  """Yields (name, fraction of the test images) of all students of a seed."""
  pooled = jd.networks.EDITS['pooled']
  target = teacher._replace(network=pooled(teacher.network))
  size = graph.shapes(teacher.network, {'image': images()})['pool'].shape[-1]
  narrow = {'stem_width': options.widths[0], 'widths': options.widths}
  student = jd.networks.create('resnet8', num_classes=size, **narrow)
  unlabelled = without_labels(dataset)
  distilled = trained(
    jd.methods.embedding,
    unlabelled,
    student,
    seed,
    rate=options.rate,
    task=jd.tasks.embedding(),
    teacher=target,
  )
  untrained = jd.new_model(
    student, jd.recipe(unlabelled, jd.tasks.embedding(), epochs=1), seed=seed
  )
  vectors = {
    'teacher': target,
    'distilled': distilled,
    'distilled, adapter dropped': distilled._replace(network=pooled(student)),
    'untrained': untrained,
  }
  task = jd.tasks.embedding()
  test = [features(model, dataset, 'test') for model in vectors.values()]
  yield 'cosine, distilled', task.agreement(test[1], test[0])
  yield 'cosine, untrained', task.agreement(test[3], test[0])
  for share in SHARES:
    rows = labelled(dataset, share, seed)
    for name, model in vectors.items():
      train = features(model, dataset, 'train')[rows]
      label = dataset.splits['train']['label'][rows]
      probes = probing.probes(
        *(train, label, features(model, dataset, 'test')),
        dataset.splits['test']['label'],
      )
      for probe, value in probes.items():
        yield f'{share:.0%} of labels, {name}, {probe}', value
    few = chosen(dataset, rows)
    network = jd.networks.create('resnet8', num_classes=10, **narrow)
    for name, initial in (('labels only', None), ('fine-tuned', distilled)):
      model = trained(jd.methods.supervised, few, network, seed, initial)
      score = jd.evaluate(model, dataset)['top1']
      yield f'{share:.0%} of labels, {name}, its classifier', score


def trained(
  method,
  dataset,
  network,
  seed=0,
  initial=None,
  *,
  rate=0.1,
  task=None,
  teacher=None,
):
  """Trains a network for the usual number of steps.

  Args:
    method: a method that needs only a recipe.
    dataset: the data.
    network: the network.
    seed: of the initial weights, the order and the augmentation.
    initial: a model whose weights the network takes over, but for its head.
    rate: the rate of SGD in the beginning.
    task: None: classification.
    teacher: the teacher, if the method needs one.
  """
  count = len(dataset.splits['train']['image'])
  batch = min(BATCH, count)
  recipe = jd.recipe(
    dataset,
    task,
    epochs=STEPS / (count // batch),
    batch_size=batch,
    augment=jd.data.crop_flip(padding=1, mirror=False),
    optimizer=jd.optimizers.sgd(jd.optimizers.cosine(rate=rate)),
  )
  student = jd.new_model(network, recipe, seed=seed + 100)
  if initial is not None:
    for collection, stages in student.variables.items():
      old = initial.variables[collection]
      stages.update({k: v for k, v in old.items() if k != 'head'})
  carry = {'student': student}
  carry |= {} if teacher is None else {'teacher': teacher}
  options = jd.FitOptions(log=log.Log(show=False))
  fitted = jd.fit(method(recipe), carry, dataset, seed=seed, options=options)
  model: Model = fitted.carry['student']
  return model


def features(model, dataset, split):
  """Returns the vectors of a split, of length 1."""
  task = jd.tasks.embedding()
  prepare = recipes.preprocess(dataset, jd.data.crop_flip(padding=1), task)
  return evaluation.predict(model, dataset.splits[split], task, prepare)


def labelled(dataset, share, seed):
  """Returns the rows of a share of each class, at least one."""
  label = dataset.splits['train']['label']
  order = np.random.default_rng(seed).permutation(len(label))
  rows = []
  for i in range(dataset.num_classes):
    of_class = order[label[order] == i]
    rows += of_class[: max(1, round(share * len(of_class)))].tolist()
  return np.array(rows)


def chosen(dataset, rows):
  """Returns a data set with only some of the training images."""
  train = {k: v[rows] for k, v in dataset.splits['train'].items()}
  return dataset._replace(splits={**dataset.splits, 'train': train})


def without_labels(dataset):
  """Returns the data set without its labels and classes."""
  splits = {
    name: {k: v for k, v in split.items() if k != 'label'}
    for name, split in dataset.splits.items()
  }
  return dataset._replace(splits=splits, num_classes=0, label_names=())


def images():
  """Returns the shape of the images of digits."""
  return jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)


if __name__ == '__main__':
  main()
