"""Training and evaluation see images of one size."""

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdistill import experiment, recipes, tables
from jaxdistill.data import arrays, augment, folder
from jaxdistill.types import UsageError

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)


def data(**options):
  label = np.arange(24) % 3
  return arrays.from_arrays(IMAGE, label, IMAGE, label, **options)


def processed(function):
  return np.asarray(function(jax.random.key(0), {'image': IMAGE[:2]})['image'])


def test_evaluation_sees_the_middle_in_the_size_of_training():
  dataset = data()
  function = recipes.preprocess(dataset, augment.imagenet(size=14))
  expected = (IMAGE[:2, 1:15, 1:15] - np.array(dataset.mean)) / dataset.std
  np.testing.assert_allclose(processed(function), expected, rtol=1e-5)


@pytest.mark.parametrize('function', [augment.none(), augment.crop_flip()])
def test_augmentation_that_keeps_the_size_is_evaluated_without(function):
  dataset = data()
  plain = augment.standardize(dataset.mean, dataset.std)
  np.testing.assert_array_equal(
    processed(recipes.preprocess(dataset, function)), processed(plain)
  )


def config(**changes):
  return {
    'data': {'name': 'noise'},
    'student': {'name': 'resnet8'},
    'methods': {'alone': {'name': 'supervised'}},
    'augment': {'name': 'imagenet', 'size': 8},
    'batch_size': 8,
    **changes,
  }


@pytest.fixture(autouse=True)
def noise(monkeypatch):
  monkeypatch.setitem(tables.DATASETS, 'noise', data)


def test_a_plan_evaluates_in_the_size_of_its_augment():
  plan = experiment.plan(config())
  assert processed(plan.preprocess).shape == (2, 8, 8, 3)


def test_a_row_in_another_size_is_refused():
  row = {'name': 'supervised', 'augment': {'name': 'imagenet', 'size': 12}}
  with pytest.raises(
    UsageError, match=r'other: its augment .*\(12, 12, 3\).*\(8, 8, 3\)'
  ):
    experiment.plan(config(methods={'other': row}))


def test_lazy_data_has_the_same_shapes(tmp_path):
  for i, image in enumerate(IMAGE):
    path = tmp_path / f'class{i % 3}'
    path.mkdir(exist_ok=True)
    PIL.Image.fromarray(image).save(path / f'{i:02d}.png')
  examples = [
    recipes.example(
      folder.folder(str(tmp_path), stream=stream), augment.none(), 5
    )
    for stream in (True, False)
  ]
  assert examples[0] == examples[1]
