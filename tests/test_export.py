"""Programs: what they take, what they answer, what they are read with."""

from flax import linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import export
from jaxdistill.data import augment
from jaxdistill.networks import convolutions, layers, staged
from jaxdistill.types import Model, Network, Stage, UsageError

MEAN, STD = (100.0,), (50.0,)


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope='module')
def logits(student, images):
  standardized = (images.astype(np.float32) - MEAN[0]) / STD[0]
  return np.asarray(staged.apply(*student, standardized))


@pytest.fixture(scope='module')
def program(student):
  preprocess = augment.standardize(MEAN, STD)
  return export.to_stablehlo(student, (8, 8, 1), preprocess=preprocess)


@pytest.mark.parametrize('batch_size', [1, 3, 6])
def test_a_program_answers_raw_images_in_batches_of_any_size(
  program, images, logits, tmp_path, batch_size
):
  export.save(tmp_path / 'program', program)
  assert [p.name for p in tmp_path.iterdir()] == ['program']
  found = export.load(tmp_path / 'program')(images[:batch_size])
  np.testing.assert_allclose(found, logits[:batch_size], atol=1e-5)


def test_a_program_is_read_without_the_library(program, images, logits):
  read = jax.export.deserialize(bytearray(program))
  assert set(read.platforms) == {'cpu', 'cuda', 'tpu'}
  (image,) = read.in_avals
  assert image.dtype == np.uint8
  assert image.shape[1:] == (8, 8, 1)
  assert str(image.shape[0]) == 'batch'
  np.testing.assert_allclose(read.call(images), logits, atol=1e-5)


def test_without_preparation_a_program_takes_the_networks_own_input(
  student, images, logits
):
  program = export.to_stablehlo(student, (8, 8, 1), platforms=('cpu',))
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


def test_each_platform_gets_its_own_form_of_a_convolution():
  """Shifts on the CPU, the grouped convolution elsewhere."""
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4)),
      Stage('depthwise', Depthwise()),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  image = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
  variables = staged.init(network, jax.random.key(0), {'image': image})
  model = Model(network, variables)

  def exported(platforms):
    program = export.to_stablehlo(model, (6, 6, 1), platforms=platforms)
    read = jax.export.deserialize(bytearray(program))
    groups = read.mlir_module().count('feature_group_count = 4')
    return read, groups

  assert exported(('cpu',))[1] == 0
  assert exported(('cuda',))[1] == 1
  program, groups = exported(('cpu', 'cuda', 'tpu'))
  assert groups >= 1
  np.testing.assert_allclose(
    program.call(image), staged.apply(*model, image), atol=1e-5
  )
  # Elsewhere nothing is exported for others.
  text = jax.jit(lambda x: staged.apply(*model, x)).lower(image).as_text()
  assert 'feature_group_count = 4' not in text


def test_narrow_numbers_may_differ_by_their_roundings():
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4, dtype='bfloat16')),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  image = np.zeros((2, 6, 6, 1), np.float32)
  variables = staged.init(network, jax.random.key(0), {'image': image})
  eps = export.rounding(Model(network, variables), image)
  assert eps == 2.0**-7
  expected = np.ones((2, 3))
  found = expected + 7 * eps
  export.check('file', found, expected, eps)
  with pytest.raises(RuntimeError):
    export.check('file', found, expected, 2.0**-23)
  with pytest.raises(RuntimeError):
    export.check('file', found + 2 * eps, expected, eps)


def test_a_missing_or_damaged_program_is_refused_by_name(program, tmp_path):
  with pytest.raises(UsageError, match='none: no such file'):
    export.load(tmp_path / 'none')
  export.save(tmp_path / 'half', b'no program')
  with pytest.raises(UsageError, match='half: no program'):
    export.load(tmp_path / 'half')


@pytest.mark.parametrize(
  'found', [np.ones((2, 3)), np.zeros((1, 3)), np.full((2, 3), np.nan)]
)
def test_other_answers_are_an_error(found):
  expected = np.zeros((2, 3))
  export.check('file', expected + 1e-6, expected)
  with pytest.raises(RuntimeError, match='file: its answers are not those'):
    export.check('file', found, expected)
