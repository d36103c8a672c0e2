"""Every config of the repository is built, and steps of its rows are traced."""

from collections.abc import Sequence
import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from jaxdistill import networks, study
from jaxdistill.core.types import Model, Network
from jaxdistill.data.sources import arrays, identities
from jaxdistill.networks.models import (
  efficientnet,
  imagenet_resnet,
  mobilenet,
  pyramidnet,
)
from jaxdistill.networks.surgery import embedding
from jaxdistill.phases import recipes
from jaxdistill.study import config as config_lib
from jaxdistill.study import models, registry

# Tracing these takes minutes, so shallow networks replace them.
DEEP = {
  'pyramidnet110_64': 64,
  'pyramidnet200_240': 240,
  'pyramidnet200_300': 300,
}
# Here, groups of ResNets and MobileNetV2 have one block; of the first two
# folders, only the first row is traced.
FIRST_ROW = ('configs/dense/', 'configs/detection/')
SMALL = (*FIRST_ROW, 'configs/faces/')
# A search traces its student many times, so one block replaces its ResNet.
ONE_BLOCK = 'neighbourhood/imagenet_search.py:search'
CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def _paths():
  """Yields (path, whether to trace the config) for every config.

  The path is 'file.py', or 'file.py:x' for each x of the file's ARGUMENTS. All
  of these are built, but only the first one is traced.
  """
  for path in sorted(CONFIGS.rglob('*.py')):
    arguments = runpy.run_path(str(path)).get('ARGUMENTS', ())
    for i, argument in enumerate(arguments or ['']):
      name = f'{path}:{argument}' if argument else str(path)
      yield pytest.param(name, not i, id=name.rpartition('configs/')[2])


def _random(size: int, num_classes: int, train_subset: int | None):
  """Random images in place of data that the tests do not have."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (1024, size, size, 3), np.uint8)
  label = np.arange(1024) % num_classes
  return arrays.from_arrays(
    image,
    label,
    image[:128],
    label[:128],
    num_classes=num_classes,
    train_subset=train_subset and 512,
  )


def _npz(
  path: str,
  *,
  validation: float = 0.1,
  train_subset: int | None = None,
  stratified: bool = True,
):
  del validation, stratified
  if 'bccd' in path:
    return _boxes(num_classes=3)
  if 'nyu_depth' in path or 'motorcycle' in path:
    depth = np.ones((32, 64, 64), np.float16)
    return _maps('depth', depth)
  return _random(32, 10, train_subset)


def _maps(name: str, targets: np.ndarray, **options):
  """Random images with targets for each pixel."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (*targets.shape, 3), np.uint8)
  columns = {'image': image, name: targets}
  return arrays.from_columns(columns, columns, validation=8, **options)


def _mask_folder(
  path: str,
  *,
  label_names: Sequence[str],
  ignore: Sequence[int] = (255,),
  image_size: Sequence[int] | None = None,
  validation: float = 0.1,
):
  del path, ignore, image_size, validation
  mask = np.arange(32 * 64 * 64).reshape(32, 64, 64) % len(label_names)
  return _maps('mask', mask.astype(np.uint8), label_names=label_names)


def _boxes(num_classes: int):
  """Random images with one box each."""
  columns = {
    'image': np.random.default_rng(0).integers(
      0, 256, (32, 64, 64, 3), np.uint8
    ),
    'boxes': np.tile(np.float32([[8, 8, 40, 40]]), (32, 1, 1)),
    'classes': np.arange(32)[:, None] % num_classes,
  }
  return arrays.from_columns(
    columns, columns, validation=8, num_classes=num_classes
  )


def _coco(path: str, *, image_size: Sequence[int], validation: float = 0.1):
  del path, image_size, validation
  return _boxes(num_classes=80)


def _folder(path: str, *, image_size: int, validation: float = 0.1):
  del path, image_size, validation
  return _random(64, 200, None)


def _identities(
  path: str,
  *,
  image_size: int,
  table: str | None = None,
  grey: bool = False,
  validation: float = 0.1,
):
  """Random images of 32 identities for training, and 12 for the test."""
  del path, image_size
  generator = np.random.default_rng(0)
  train, test = (
    {
      'image': generator.integers(
        0, 256, (10 * count, 64, 64, 1 if grey else 3), np.uint8
      ),
      'identity': np.repeat(np.arange(first, first + count), 10),
    }
    for first, count in ((0, 32), (32, 12))
  )
  if table is not None:
    test |= {'protocol': np.zeros(120, int)}
  return identities.from_identities(train, test, validation=validation)


def _tfds(
  dataset: str,
  *,
  validation: float = 0.1,
  image_size: int | None = None,
  train_subset: int | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
):
  del validation, mean, std
  classes = {'cifar10': 10, 'cifar100': 100, 'imagenet2012': 1000}
  # Small images replace ImageNet's: the size does not change what is traced.
  return _random(64 if image_size else 32, classes[dataset], train_subset)


def _one_block(**arguments):
  """A ResNet-50 of which only the first block is left."""
  stages = imagenet_resnet.imagenet_resnet(50, **arguments).stages
  first = ('stem', 'group1.block1', 'pool', 'head')
  return Network(tuple(stage for stage in stages if stage.name in first))


def _faces_teacher(file: pathlib.Path) -> str:
  """Writes a small teacher with the features of the one of faces/orl.py."""
  network = embedding.embedded(
    efficientnet.efficientnet_lite(
      depth=0.1, num_classes=32, widths=(8,) * 7, last_width=8
    ),
    size=112,
  )
  shapes = networks.variable_shapes(
    network, {'image': np.zeros((1, 64, 64, 3), np.float32)}
  )
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  networks.save(str(file), Model(network, zeros))
  return str(file)


@pytest.mark.parametrize(('path', 'trace'), tuple(_paths()))
def test_a_config_is_built_and_traced(path, trace, monkeypatch, tmp_path):
  monkeypatch.setitem(registry.DATASETS, 'npz', _npz)
  monkeypatch.setitem(registry.DATASETS, 'tfds', _tfds)
  monkeypatch.setitem(registry.DATASETS, 'folder', _folder)
  monkeypatch.setitem(registry.DATASETS, 'mask_folder', _mask_folder)
  monkeypatch.setitem(registry.DATASETS, 'identities', _identities)
  monkeypatch.setitem(registry.DATASETS, 'coco', _coco)
  for name, widening in DEEP.items():
    shallow = functools.partial(pyramidnet.pyramidnet, 11, widening)
    monkeypatch.setitem(registry.NETWORKS, name, shallow)
  if path.endswith(ONE_BLOCK):
    monkeypatch.setitem(registry.NETWORKS, 'resnet50', _one_block)
  if any(folder in path for folder in SMALL):
    for depth in imagenet_resnet.BLOCKS:
      monkeypatch.setitem(imagenet_resnet.BLOCKS, depth, (1, 1, 1, 1))
    groups = [(expansion, 8, 1) for expansion, *_ in mobilenet._V2_GROUPS]
    monkeypatch.setattr(mobilenet, '_V2_GROUPS', groups)
  config = config_lib.load(path)
  if path.endswith('faces/orl.py'):
    teacher = _faces_teacher(tmp_path / 'teacher.safetensors')
    config['teacher']['checkpoint'] = teacher
  plan = study.plan(config)
  # The plan has built every row. The last one of those with the most phases is
  # traced.
  rows = [row for row in plan.rows if row.role == 'student']
  if any(folder in path for folder in FIRST_ROW):
    rows = rows[:1]
  longest = max(reversed(rows), key=lambda row: len(row.method))
  if trace:
    _trace_steps(plan, longest, all_phases='/masked_layer/' in path)


def _trace_steps(plan, row, all_phases):
  """Checks that a step keeps the form of the state and returns scalars.

  Every later step is then like the first one. Phases without steps are followed
  by the next phase, and `all_phases` are traced if none of them depends on the
  numbers of the phase before it.
  """
  carry = models.abstract_carry(plan, row.role)
  for make in row.method:
    phase = make(carry)
    state, frozen = _trace(plan, phase, carry)
    if phase.num_steps and not all_phases:
      break
    carry = phase.finish(state, frozen, carry)


def _trace(plan, phase, carry):
  """Traces a step; returns the shapes of the state and of what is frozen."""
  rng = jax.random.key(0)

  def init(rng, variables):
    models = {k: Model(carry[k].network, v) for k, v in variables.items()}
    return phase.init(rng, models)

  def step(state, frozen, batches):
    return phase.step(state, frozen, batches, rng, phase.static(0))

  variables = {role: model.variables for role, model in carry.items()}
  state, frozen = jax.eval_shape(init, rng, variables)
  batches = {
    name: recipes.example(plan.dataset, stream.augment, stream.batch_size)
    for name, stream in phase.streams.items()
  }
  after, metrics = jax.eval_shape(step, state, frozen, batches)
  assert all(metric.shape == () for metric in metrics.values())
  assert jax.tree.structure(after) == jax.tree.structure(state)
  forms = (
    [(x.shape, x.dtype) for x in jax.tree.leaves(t)] for t in (after, state)
  )
  assert next(forms) == next(forms)
  return state, frozen
