"""Wrong arguments of one call: one line each, and nothing is written."""

import sys

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.networks import graph
from jaxdistill.networks.weights import files


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Folders of images, and files that are no teachers."""
  root = tmp_path_factory.mktemp('place')
  for name in (
    'labelled/ant',
    'labelled/bee',
    'flat',
    'empty',
    'broken',
    'run',
  ):
    (root / name).mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(10):
    image = PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    for name in ('labelled/ant', 'labelled/bee', 'flat'):
      image.save(root / name / f'{i}.png')
    (root / 'broken' / f'{i}.png').write_text('not an image')
  (root / 'empty' / 'notes.txt').write_text('')
  (root / 'weights.pth').write_bytes(b'nothing')
  files.save_tree(root / 'plain.safetensors', {'params': {'a': np.ones(1)}}, {})
  return root


# What is wrong -> (arguments, parts of the message).
WRONG = {
  'missing folder': ({'data': 'labeled'}, ["'labeled'", "'labelled'?"]),
  'folder without images': ({'data': 'empty'}, ["no images in 'empty'"]),
  'unreadable images': ({'data': 'broken'}, ["none of the images in 'broken'"]),
  'data of another type': ({'data': 3}, ['data: expected', 'int', '.npz']),
  'unknown teacher': ({'teacher': 'resnet9'}, ["'resnet9'", 'did you mean']),
  'folder without a teacher': ({'teacher': 'run'}, ["'run:ROW'"]),
  'weights without a network': (
    {'teacher': 'weights.pth'},
    ["'NETWORK:weights.pth'"],
  ),
  'a file without a description': (
    {'teacher': 'plain.safetensors'},
    ["'NETWORK:plain.safetensors'"],
  ),
  'missing weights': ({'teacher': 'resnet8:no.pth'}, ["no file 'no.pth'"]),
  'damaged weights': ({'teacher': 'resnet8:weights.pth'}, ['weights.pth']),
  'teacher of another type': ({'teacher': 3.5}, ['nnx.Module', 'float']),
  'teacher without labels': (
    {'data': 'flat'},
    ["'resnet8' has no weights", 'no labels'],
  ),
  'unknown student': ({'student': 'resnet9'}, ["'resnet9'", 'did you mean']),
  'share of 1': ({'student': 1}, ['student: expected a number in (0, 1)']),
  'negative share': ({'student': -0.5}, ['(0, 1)', '-0.5']),
  'student of another type': ({'student': [1]}, ['student', 'list']),
  'unknown method': ({'method': 'kdd'}, ["'kdd'", "did you mean 'kd'?"]),
  'no seeds': ({'seeds': 0}, ['seeds', '0']),
  'no epochs': ({'epochs': 0}, ['epochs', 'above 0']),
  'large batch': ({'batch_size': 100}, ['batch_size', '100']),
  'hub without an owner': ({'push_to_hub': 'x'}, ["'OWNER/NAME'", "'x'"]),
  'size of images': ({'image_size': 0}, ['image_size', '0']),
  'unknown format': ({'formats': ('onx',)}, ["'onx'", 'safetensors']),
  'format that is a string': ({'formats': 'stablehlo'}, ['formats']),
  'labels of digits': ({'data': 'digits', 'labels': 'none'}, ['labels: ']),
  'labels': ({'labels': 'fodlers'}, ["'fodlers'", "'folders'"]),
  'missing argument of a method': ({'method': 'pruned'}, ["'pruning'"]),
  'a single image': ({'data': 'flat/0.png'}, ["this file is 'flat'"]),
  'missing file of labels': ({'labels': 'labels.csv'}, ["'labels.csv'"]),
  'a list of one teacher': ({'teacher': ['resnet8']}, ['a list of 1']),
  'joined teachers as a number': ({'teacher': {'joined': 5}}, ['a list', '5']),
  'size of images as text': ({'image_size': '96'}, ["'96'"]),
  'epochs as text': ({'epochs': '10'}, ['epochs', "'10'"]),
  'half a seed': ({'seeds': 1.5}, ['seeds', '1.5']),
  'no views': ({'cache_teacher': 0}, ['cache_teacher', 'from 1', '0']),
  'views as text': ({'cache_teacher': 'yes'}, ['cache_teacher', 'auto']),
  'stored outputs for a method of features': (
    {'cache_teacher': 4, 'method': 'at'},
    ["'at' reads more of the teacher", 'cache_teacher=False'],
  ),
  'a file in place of the work directory': (
    {'out': 'weights.pth'},
    ['weights.pth'],
  ),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_argument_is_refused_in_one_line(
  name, place, tmp_path, monkeypatch
):
  monkeypatch.chdir(place)
  arguments, parts = WRONG[name]
  out = tmp_path / 'out'
  valid = {'data': 'labelled', 'teacher': 'resnet8', 'out': out, 'show': False}
  with pytest.raises(jd.UsageError) as error:
    jd.distill(**{**valid, **arguments})
  message = str(error.value)
  assert '\n' not in message
  for part in parts:
    assert part in message
  assert not out.exists()


def test_a_format_whose_package_is_missing_is_refused_before_training(
  place, tmp_path, monkeypatch
):
  monkeypatch.chdir(place)
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(
    jd.UsageError, match=r'^the format onnx needs onnx: pip in'
  ):
    jd.distill(
      'labelled',
      teacher='resnet8',
      out=tmp_path / 'out',
      formats=('safetensors', 'onnx'),
      show=False,
    )
  assert not (tmp_path / 'out').exists()


def test_a_teacher_that_cannot_read_the_images_is_refused(
  place, tmp_path, monkeypatch
):
  monkeypatch.chdir(place)
  network = jd.networks.create('resnet8', num_classes=2)
  grey = {'image': np.zeros((1, 8, 8, 1), np.float32)}
  variables = graph.variable_shapes(network, grey)
  zeros = {
    name: {k: {j: _zeros(x) for j, x in v.items()} for k, v in tree.items()}
    for name, tree in variables.items()
  }
  with pytest.raises(jd.UsageError, match=r'teacher.*expected') as error:
    jd.distill(
      'labelled', teacher=(network, zeros), out=tmp_path / 'out', show=False
    )
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()  # its file has been removed


def _zeros(tree):
  if isinstance(tree, dict):
    return {k: _zeros(v) for k, v in tree.items()}
  return np.zeros(tree.shape, tree.dtype)
