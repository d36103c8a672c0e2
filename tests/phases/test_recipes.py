"""Training and evaluation use images of the same size."""

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import arrays, folder
from jaxdistill.data.transforms import augment
from jaxdistill.phases import recipes
from jaxdistill.study import registry
from jaxdistill.tasks import classification

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)


def data(**options):
  label = np.arange(24) % 3
  return arrays.from_arrays(IMAGE, label, IMAGE, label, **options)


def processed(function):
  return np.asarray(function(jax.random.key(0), {'image': IMAGE[:2]})['image'])


def test_evaluation_crops_the_centre_to_the_size_of_training():
  dataset = data()
  function = recipes.preprocess(dataset, augment.imagenet(size=14))
  expected = (IMAGE[:2, 1:15, 1:15] - np.array(dataset.mean)) / dataset.std
  np.testing.assert_allclose(processed(function), expected, 1e-5, 1e-6)


@pytest.mark.parametrize('function', [augment.none(), augment.crop_flip()])
def test_images_are_only_standardised_if_augmentation_keeps_their_size(
  function,
):
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
  monkeypatch.setitem(registry.DATASETS, 'noise', data)


def test_a_plan_evaluates_at_the_size_of_its_augmentation():
  plan = study.plan(config())
  assert processed(plan.preprocess).shape == (2, 8, 8, 3)


def test_a_row_with_images_of_another_size_is_refused():
  row = {'name': 'supervised', 'augment': {'name': 'imagenet', 'size': 12}}
  with pytest.raises(
    UsageError, match=r'other: its augment .*\(12, 12, 3\).*\(8, 8, 3\)'
  ):
    study.plan(config(methods={'other': row}))


def test_streamed_data_has_the_same_shapes(tmp_path):
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


def test_the_images_of_a_task_that_changes_them_get_no_other_augmentation():
  task = classification()._replace(prepare=lambda rng, batch: batch)
  recipe = recipes.recipe(data(), task, epochs=1, batch_size=4)
  with pytest.raises(UsageError, match='changes the images after'):
    recipes.with_augment(recipe, augment.crop_flip())
