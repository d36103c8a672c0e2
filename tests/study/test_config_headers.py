"""The headers of configs say which images a full-size experiment trains on."""

import pathlib
import re
import runpy

import pytest

from jaxdistill.study import config as config_lib

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
FOLDERS = (
  *('dense', 'detection', 'distpro', 'faces', 'kd', 'losses'),
  *('masked_layer', 'neighbourhood', 'orthogonality', 'sskd'),
)
# The sizes of the training sets, by data set or by file.
SIZES = {
  'cifar10': 50_000,
  'cifar100': 50_000,
  'imagenet2012': 1_281_167,
  'cifar10.npz': 50_000,
  'tiny-imagenet': 100_000,
  'casia_ijba': 494_414,
  'coco': 118_287,
  'cityscapes': 2_975,
  'nyu_depth_v2.npz': 47_584,
}
FULL_SIZE = [
  path
  for folder in FOLDERS
  for path in sorted((CONFIGS / folder).glob('*.py'))
  if 'We have not run this config' in path.read_text()
]


def load(path, argument=''):
  name = f'{path}:{argument}' if argument else str(path)
  return config_lib.plain(config_lib.load(name))


def numbers(text):
  return [int(n.replace(',', '')) for n in re.findall(r'\d[\d,]*\d', text)]


@pytest.mark.parametrize(
  'path', FULL_SIZE, ids=lambda path: f'{path.parent.name}/{path.name}'
)
def test_the_header_says_what_is_held_out(path):
  header = path.read_text().split('"""')[1]
  found = re.search(r'^Held out: (.*?)\.$', header, re.MULTILINE | re.DOTALL)
  assert found, 'expected a line "Held out: ..."'
  sentence = found[1]
  stated = numbers(sentence) + ([0] if 'nothing' in sentence else [])
  arguments = runpy.run_path(str(path)).get('ARGUMENTS', ())
  held_out = set()
  for argument in arguments or ['']:
    data = load(path, argument)['data']
    size = SIZES[data.get('dataset', data.get('path'))]
    assert size in stated
    # A fraction would be another number of images, which nobody stated.
    held_out.add(data['validation'])
  assert held_out == set(stated) - {size}


def test_there_are_full_size_configs_in_every_folder():
  assert {path.parent.name for path in FULL_SIZE} == set(FOLDERS)


@pytest.mark.parametrize(
  ('file', 'sskd', 'rivals'),
  [
    ('cifar100_resnet56_resnet20.py', 'sskd, 4 stages', ('at', 'nst')),
    ('cifar100_weights.py', 'sskd', ('at 10', 'at 1000', 'nst 50')),
  ],
)
def test_at_and_nst_compare_the_features_of_all_four_stages(file, sskd, rivals):
  rows = load(CONFIGS / 'sskd' / file)['methods']
  assert len(rows[sskd]['cut']) == 4
  for rival in rivals:
    assert rows[rival]['feature_pairs'] == rows[sskd]['cut']


def test_one_search_serves_alpha_t_and_distpro_on_cifar100():
  rows = load(CONFIGS / 'distpro/cifar100.py')['methods']
  searches = [row for row in rows.values() if row['name'] == 'distpro']
  assert [row['use'] for row in searches] == [('last', 'process')]


@pytest.mark.parametrize(
  ('config', 'process'),
  [
    ('imagenet.py:mobilenet-epochs,a/process.json', 'a/process.json'),
    ('imagenet.py:resnet18-epochs', None),
    ('cifar10_wrn16_1_wrn10_1.py:epochs,process.json', 'process.json'),
  ],
)
def test_all_lengths_of_a_sweep_share_one_process(config, process):
  rows = load(CONFIGS / 'distpro' / config)['methods']
  searched = {k: v for k, v in rows.items() if v['name'] == 'distpro'}
  assert len({row['epochs'] for row in searched.values()}) >= 5
  assert {row['process'] for row in searched.values()} == {process}
  assert {row['epochs'] for row in searched.values()} == {
    row['epochs'] for row in rows.values() if row['name'] == 'reviewkd'
  }


@pytest.mark.parametrize(
  ('file', 'rate'), [('coco_retinanet.py', 0.01), ('coco_faster_rcnn.py', 0.02)]
)
@pytest.mark.parametrize(
  ('argument', 'batch_size', 'steps', 'first_drop'),
  [
    ('50-101', 16, 180_000, 120_000),
    ('50-101,1x', 16, 90_000, 60_000),
    ('50-101,1x,8', 8, 180_000, 120_000),
  ],
)
def test_detectors_train_for_the_usual_lengths(
  file, rate, argument, batch_size, steps, first_drop
):
  path = CONFIGS / 'detection' / file
  assert argument in runpy.run_path(str(path))['ARGUMENTS']
  config = load(path, argument)
  share, schedule = batch_size / 16, config['optimizer']['schedule']
  assert config['batch_size'] == batch_size
  for epochs in (config['epochs'], config['teacher']['training']['epochs']):
    assert round(epochs * SIZES['coco'] / batch_size) == steps
  assert round(schedule['boundaries'][0] * steps) == first_drop
  stage = config['methods']['SSKD']['stage_optimizer']['schedule']
  assert (schedule['rate'], stage['rate']) == (rate * share, 0.01 * share)
