"""Teachers from folders and names of pretrained models."""

import json
import pathlib
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from jaxdistill import networks, study
from jaxdistill.core.checks import UsageError
from jaxdistill.networks.surgery import resizing
from jaxdistill.networks.weights import (
  hub,
  huggingface,
  sources,
  timm_models,
)
from jaxdistill.study import listing

FOLDERS = pathlib.Path(__file__).parents[1] / 'networks' / 'hub_fixtures'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A file with a few colour images of three classes."""
  path = tmp_path_factory.mktemp('data') / 'data.npz'
  rng = np.random.default_rng(0)
  np.savez(
    path,
    train_image=rng.integers(0, 256, (12, 14, 14, 3), np.uint8),
    train_label=np.arange(12) % 3,
    test_image=rng.integers(0, 256, (6, 14, 14, 3), np.uint8),
    test_label=np.arange(6) % 3,
    label_names=['frog', 'cat', 'dog'],
  )
  return {'name': 'npz', 'path': str(path), 'validation': 0.0}


def plan(data, teacher, method='at'):
  config = {
    'data': data,
    'augment': {'name': 'none'},
    'teacher': teacher,
    'student': {'name': 'vit', 'width': 8, 'depth': 2, 'heads': 2, 'patch': 7},
    'epochs': 1,
    'batch_size': 4,
    'method': {'name': method},
  }
  return study.plan(config)


def test_a_folder_is_a_teacher_with_its_own_standardisation_and_classes(data):
  built = plan(data, {'weights': str(FOLDERS / 'vit')}, 'kd')
  assert not built.foreign_teacher
  first, size, standardised, order = built.notes
  assert 'licence apache-2.0' in first
  assert '28 x 28, and gets images of 14 x 14' in size
  assert '(123.7, 116.3, 103.5)' in standardised
  assert 'reordered by name' in order
  images = built.dataset.splits['test']['image'].astype(np.float32)
  mean, std = (np.float32(x) for x in (built.dataset.mean, built.dataset.std))
  outputs = networks.apply(*built.teacher, (images - mean) / std)
  own = huggingface.load(FOLDERS / 'vit')
  own_mean, own_std = (np.float32(own.metadata[k]) for k in ('mean', 'std'))
  expected = networks.apply(*own.model, (images - own_mean) / own_std)
  np.testing.assert_allclose(outputs, expected[:, [2, 0, 1]], atol=1e-5)


def test_a_teacher_resizes_its_images_after_they_are_standardised(data):
  teacher = {'weights': str(FOLDERS / 'dinov2'), 'image_size': 28}
  built = plan(data, teacher)
  assert 'gets images of' not in ' '.join(built.notes)
  assert 'the shape (16,)' in built.foreign_teacher
  stages = built.teacher.network.stages
  assert [stage.name for stage in stages[:2]] == ['resize', 'stem']
  assert stages[0].image is not None
  assert stages[1].image is None
  shapes = networks.shapes(built.teacher.network, {'image': built.image})
  assert shapes['group1'].shape == (1, 1 + 16, 16)
  rebuilt = networks.from_description(
    networks.to_description(built.teacher.network)
  )
  assert rebuilt == built.teacher.network


def test_resizing_is_that_of_pillow():
  from PIL import Image

  image = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)
  module = resizing.Resize(21)
  value = module.apply({}, image[None, ..., None], False)
  expected = Image.fromarray(image).resize((21, 21), Image.Resampling.BILINEAR)
  np.testing.assert_allclose(value[0, ..., 0], expected, atol=1e-5)


def test_a_model_of_timm_is_found_by_its_architecture(tmp_path, monkeypatch):
  arguments = {'width': 16, 'depth': 2, 'heads': 2, 'patch': 7}
  arguments |= {'layer_scale': 1.0, 'registers': 4, 'positions': 'patches'}
  monkeypatch.setitem(
    timm_models.ARCHITECTURES,
    'vit_small_patch14_reg4_dinov2',
    ('vit', arguments),
  )
  weights = FOLDERS.parent / 'fixtures' / 'timm_dinov2.safetensors'
  shutil.copy(weights, tmp_path / 'model.safetensors')
  config = {
    'architecture': 'vit_small_patch14_reg4_dinov2.lvd142m',
    'num_classes': 5,
    'pretrained_cfg': {
      'input_size': [3, 35, 35],
      'mean': [0.5, 0.5, 0.5],
      'std': [0.5, 0.25, 0.5],
    },
  }
  (tmp_path / 'config.json').write_text(json.dumps(config))
  loaded = huggingface.load(tmp_path)
  assert loaded.image_size == 35
  assert loaded.metadata['std'] == [127.5, 63.75, 127.5]
  assert 'no licence' in loaded.about
  image = jax.ShapeDtypeStruct((1, 21, 21, 3), np.float32)
  shapes = networks.shapes(loaded.model.network, {'image': image})
  assert shapes['head'].shape == (1, 5)


def test_every_architecture_of_timm_names_a_network():
  for name, (network, arguments) in timm_models.ARCHITECTURES.items():
    config = {'architecture': f'{name}.tag', 'num_classes': 7}
    made = timm_models.network('config.json', config, 224)
    assert made.stages[-1].module.num_classes == 7
    assert network in networks.names()
    assert isinstance(arguments, dict)


def test_the_listed_teachers_are_networks_of_the_listed_sizes():
  table = (pathlib.Path(__file__).parents[2] / 'NETWORKS.md').read_text()
  heading, *lines = listing.names('teachers')
  assert heading.split()[0] == '--teacher'
  assert len(lines) == len(sources.SOURCES)
  for line, (name, source) in zip(lines, sources.SOURCES.items()):
    teacher, network, *_ = line.split()
    assert (teacher, network) == (source.teacher, name)
    assert teacher.startswith('hf:') or teacher == f'{name}:FILE'
    assert source.remark in line
    count = re.search(rf'`{name}` \| \d+ \| ([\d,]+)', table)[1]
    millions = int(count.replace(',', '')) / 1e6
    assert source.millions == pytest.approx(millions, abs=0.051)


def changed(tmp_path, name='dinov2', **changes):
  """Returns a copy of a folder whose config.json has other values."""
  folder = tmp_path / name
  shutil.copytree(FOLDERS / name, folder)
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, **changes}))
  return folder


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model_type': 'bert'}, 'expected one of the model types vit, dinov2, .*'),
    ({'model_type': ['vit']}, 'expected one of the model types'),
    ({'use_swiglu_ffn': True}, 'expected use_swiglu_ffn False'),
    ({'hidden_size': 'many'}, 'hidden_size: expected a whole number'),
    ({'num_hidden_layers': 3}, 'lacks tensor .encoder.layer.2'),
    ({'hidden_act': 'relu'}, "unknown hidden_act in .* 'relu'"),
    ({'num_channels': 1}, 'expected num_channels 3'),
    ({'architecture': 'swin'}, "unknown architecture in .* 'swin'"),
  ],
)
def test_a_model_that_is_not_known_is_refused_in_one_line(
  tmp_path, changes, message
):
  with pytest.raises(UsageError, match=message) as error:
    huggingface.load(changed(tmp_path, **changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('config.json', None, 'config.json: no such file'),
    ('config.json', '{', 'config.json: expected JSON'),
    ('config.json', '[]', 'expected names and values'),
    ('model.safetensors', None, 'expected a file model.safetensors or'),
    ('model.safetensors', 'x', 'expected a safetensors file'),
    ('preprocessor_config.json', '[', 'expected JSON'),
  ],
)
def test_a_damaged_folder_is_refused_in_one_line(
  tmp_path, name, content, message
):
  folder = changed(tmp_path)
  (folder / name).unlink()
  if content is not None:
    (folder / name).write_text(content)
  with pytest.raises(UsageError, match=message) as error:
    huggingface.load(folder)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('teacher', 'message'),
  [
    ({'name': 'resnet8', 'image_size': 28}, 'expected weights or checkpoint'),
    ({'weights': 'nowhere'}, "teacher.weights: no file 'nowhere'"),
    ({'weights': str(FOLDERS / 'vit'), 'image_size': 0}, 'teacher.image_size'),
    (
      {'weights': str(FOLDERS / 'vit'), 'image_size': 3},
      'at least 7 x 7 pixels',
    ),
  ],
)
def test_a_teacher_that_cannot_be_used_is_refused_in_one_line(
  data, teacher, message
):
  with pytest.raises(UsageError, match=message) as error:
    plan(data, teacher)
  assert '\n' not in str(error.value)


def test_grey_data_are_refused_in_one_line():
  with pytest.raises(UsageError, match=r'data of 3 channels, .* got 1'):
    plan({'name': 'digits'}, {'weights': str(FOLDERS / 'dinov2')})


@pytest.fixture
def fake_hub(monkeypatch):
  """A huggingface_hub whose download the test replaces."""
  module = types.ModuleType('huggingface_hub')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  return module


def test_a_name_is_the_same_as_its_folder(fake_hub, tmp_path):
  folder = tmp_path / 'snapshots' / 'abc123'
  shutil.copytree(FOLDERS / 'dinov3', folder)
  card = '---\nlicense: other\nlicense_name: dinov3\nextra_gated_fields:\n---\n'
  (folder / 'README.md').write_text(card)
  calls = []

  def download(name, **options):
    calls.append((name, options['revision'], options['allow_patterns']))
    return str(folder)

  fake_hub.snapshot_download = download
  loaded = huggingface.load('hf:facebook/dinov3@v1')
  assert calls == [('facebook/dinov3', 'v1', list(hub.FILES))]
  assert loaded.model.network == huggingface.load(FOLDERS / 'dinov3').model[0]
  assert loaded.about == (
    'revision abc123, licence dinov3, access is restricted'
  )


@pytest.mark.parametrize(
  ('kinds', 'message'),
  [
    (('RepositoryNotFoundError', 'GatedRepoError'), 'access is restricted'),
    (('RepositoryNotFoundError',), 'there is no such model'),
    (('RevisionNotFoundError',), 'no such revision'),
    (('LocalEntryNotFoundError',), 'no connection to huggingface.co'),
    (('HFValidationError',), "expected 'hf:OWNER/NAME'"),
    (('Strange',), r'the hub cannot be used \(Strange: two lines\)'),
  ],
)
def test_a_name_that_cannot_be_downloaded_is_refused_in_one_line(
  fake_hub, kinds, message
):
  error_type = Exception
  for kind in kinds:
    error_type = type(kind, (error_type,), {})

  def download(*arguments, **options):
    raise error_type('two\nlines')

  fake_hub.snapshot_download = download
  with pytest.raises(UsageError, match=message) as error:
    hub.folder('hf:owner/name')
  assert '\n' not in str(error.value)


def test_a_missing_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UsageError, match='pip install huggingface_hub'):
    hub.folder('hf:owner/name')
