"""Programs: their inputs, their outputs, and how they are read."""

import functools

from flax import linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.networks.layers import convolutions
from jaxdistill.study import stablehlo

MEAN, STD = (100.0,), (50.0,)


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope='module')
def logits(student, images):
  standardized = (images.astype(np.float32) - MEAN[0]) / STD[0]
  return np.asarray(graph.apply(*student, standardized))


@pytest.fixture(scope='module')
def program(student):
  preprocess = augment.standardize(MEAN, STD)
  return stablehlo.to_stablehlo(student, (8, 8, 1), preprocess=preprocess)


@pytest.mark.parametrize('batch_size', [1, 3, 6])
def test_a_program_takes_raw_images_in_batches_of_any_size(
  program, images, logits, tmp_path, batch_size
):
  stablehlo.save(tmp_path / 'program', program)
  assert [p.name for p in tmp_path.iterdir()] == ['program']
  outputs = stablehlo.load(tmp_path / 'program')(images[:batch_size])
  np.testing.assert_allclose(outputs, logits[:batch_size], atol=1e-5)


def test_a_program_is_read_without_the_library(program, images, logits):
  read = jax.export.deserialize(bytearray(program))
  assert set(read.platforms) == {'cpu', 'cuda', 'tpu'}
  (image,) = read.in_avals
  assert image.dtype == np.uint8
  assert image.shape[1:] == (8, 8, 1)
  assert str(image.shape[0]) == 'batch'
  np.testing.assert_allclose(read.call(images), logits, atol=1e-5)


def test_without_preprocessing_a_program_takes_the_networks_input(
  student, images, logits
):
  program = stablehlo.to_stablehlo(student, (8, 8, 1), platforms=('cpu',))
  read = jax.export.deserialize(bytearray(program))
  assert read.in_avals[0].dtype == np.float32
  assert read.platforms == ('cpu',)
  image = (images.astype(np.float32) - MEAN[0]) / STD[0]
  np.testing.assert_allclose(read.call(image), logits, atol=1e-5)


class Depthwise(nn.Module):
  """One kernel for each of 4 channels."""

  @nn.compact
  def __call__(self, x, train):
    del train
    initial = nn.initializers.lecun_normal()
    return convolutions.Conv(4, 3, 1, 4, False, initial, jnp.float32)(x)


def test_each_platform_gets_its_form_of_a_convolution():
  """Shifts on the CPU, a grouped convolution on other platforms."""
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4)),
      Stage('depthwise', Depthwise()),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  image = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
  variables = graph.init(network, jax.random.key(0), {'image': image})
  model = Model(network, variables)

  def exported(platforms):
    program = stablehlo.to_stablehlo(model, (6, 6, 1), platforms=platforms)
    read = jax.export.deserialize(bytearray(program))
    groups = read.mlir_module().count('feature_group_count = 4')
    return read, groups

  assert exported(('cpu',))[1] == 0
  assert exported(('cuda',))[1] == 1
  program, groups = exported(('cpu', 'cuda', 'tpu'))
  assert groups >= 1
  np.testing.assert_allclose(
    program.call(image), graph.apply(*model, image), atol=1e-5
  )
  # Outside of an export, only the form of this platform is compiled.
  text = jax.jit(lambda x: graph.apply(*model, x)).lower(image).as_text()
  assert 'feature_group_count = 4' not in text


def test_the_convolutions_of_fast_cpu_compute_predictions(student, convolved):
  """One device computes them where the processor appears as two."""
  run = functools.partial(
    stablehlo.outputs,
    student.network,
    augment.standardize(MEAN, STD),
    tasks.as_they_are,
  )
  images = jax.ShapeDtypeStruct((5, 8, 8, 1), np.uint8)
  assert jax.eval_shape(run, student.variables, images).shape == (5, 3)
  assert convolved and all(shape[0] == 5 for shape in convolved)


def test_predictions_can_be_computed_inside_a_mesh_of_the_caller(student):
  mesh = jax.sharding.AbstractMesh((2,), ('mine',))
  run = functools.partial(
    stablehlo.outputs, student.network, None, tasks.as_they_are
  )
  images = jax.ShapeDtypeStruct((5, 8, 8, 1), np.float32)
  with jax.sharding.use_abstract_mesh(mesh):
    shape = jax.eval_shape(run, student.variables, images).shape
  assert shape == (5, 3)


def test_outputs_of_narrow_types_may_differ_by_rounding_errors():
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4, dtype='bfloat16')),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  image = np.zeros((2, 6, 6, 1), np.float32)
  variables = graph.init(network, jax.random.key(0), {'image': image})
  eps = stablehlo.rounding(Model(network, variables), image)
  assert eps == 2.0**-7
  expected = np.ones((2, 3))
  outputs = expected + 7 * eps
  stablehlo.check('file', outputs, expected, eps)
  with pytest.raises(RuntimeError):
    stablehlo.check('file', outputs, expected, 2.0**-23)
  with pytest.raises(RuntimeError):
    stablehlo.check('file', outputs + 2 * eps, expected, eps)


def test_a_missing_or_damaged_program_is_named(program, tmp_path):
  with pytest.raises(UsageError, match='none: no such file'):
    stablehlo.load(tmp_path / 'none')
  stablehlo.save(tmp_path / 'half', b'no program')
  with pytest.raises(UsageError, match='half: expected a program'):
    stablehlo.load(tmp_path / 'half')


@pytest.mark.parametrize(
  'outputs', [np.ones((2, 3)), np.zeros((1, 3)), np.full((2, 3), np.nan)]
)
def test_outputs_that_differ_are_an_error(outputs):
  expected = np.zeros((2, 3))
  stablehlo.check('file', expected + 1e-6, expected)
  with pytest.raises(RuntimeError, match='file: its outputs differ'):
    stablehlo.check('file', outputs, expected)


def objects(rng):
  """Boxes, classes and scores of 50 objects in each of two images."""
  return {
    'boxes': rng.uniform(0, 99, (2, 50, 4)),
    'classes': rng.integers(0, 3, (2, 50)),
    'scores': rng.uniform(0, 1, (2, 50)),
  }


def test_objects_may_change_places_but_not_differ():
  expected = objects(np.random.default_rng(0))
  swapped = {k: v.copy() for k, v in expected.items()}
  for column in swapped.values():
    column[1, [3, 4]] = column[1, [4, 3]]
  stablehlo.check('file', swapped, expected)
  swapped['classes'][:, 10:] = expected['classes'][:, 10:] = -1
  stablehlo.check('file', swapped, expected)
  # Two of 20 objects differ; the 80 rows without an object do not count.
  changes = [('boxes', 1.0), ('classes', 1), ('scores', 0.01)]
  for name, change in changes:
    moved = {k: v.copy() for k, v in swapped.items()}
    moved[name][0, :2] += change
    with pytest.raises(RuntimeError, match='file: its outputs differ'):
      stablehlo.check('file', moved, expected)
