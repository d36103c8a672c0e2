"""The Python code in the README and in the documentation runs."""

import json
import pathlib
import re
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import main, study
from jaxdistill.data.transforms import augment
from jaxdistill.study import report, stablehlo

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  ROOT / 'README.md',
  *(ROOT / f'docs/{page}.md' for page in ('quickstart', 'concepts')),
  *sorted((ROOT / 'docs/guides').glob('*.md')),
]
CONFIG_PAGES = [
  ROOT / 'docs/choosing.md',
  ROOT / 'docs/reference/configuration.md',
]
NOT_RUN = '<!-- not run -->'
# Narrow networks and a few steps, so that the tests are quick.
SHORTER = (
  (r'\bepochs=\d+', 'epochs=0.1'),
  (
    r"create\('(resnet8)', num_classes=10\)",
    r"create('\1', num_classes=10, stem_width=2, widths=(2, 2, 2))",
  ),
)


def blocks(page: pathlib.Path) -> list[str]:
  """Returns the Python blocks of a page, but those marked as not run."""
  found = re.findall(
    rf'({NOT_RUN}\n)?^```python\n(.*?)^```', page.read_text(), re.S | re.M
  )
  return [code for mark, code in found if not mark]


def shortened(code: str) -> str:
  for pattern, replacement in SHORTER:
    code = re.sub(pattern, replacement, code)
  return code


def prepare_export(space):
  """Writes the StableHLO file that the guide on exports reads."""
  network = jd.networks.create('resnet8', num_classes=10, widths=(2, 2, 2))
  image = jnp.ones((1, 8, 8, 1))
  variables = jd.networks.init(network, _key(), {'image': image})
  program = stablehlo.to_stablehlo(
    jd.Model(network, variables),
    (8, 8, 1),
    preprocess=augment.standardize((128.0,), (64.0,)),
  )
  stablehlo.save('student.stablehlo', program)
  space['images'] = np.full((3, 8, 8, 1), 192, np.uint8)


def prepare_results(space):
  """Writes the files of a work directory that the guide on results reads."""
  del space
  folder = pathlib.Path('runs/quickstart')
  folder.mkdir(parents=True)
  seeds = {'0': {'test': {'last': {'top1': 0.9}}}}
  results = {'rows': [{'label': 'kd', 'seeds': seeds}], 'score': 'top1'}
  (folder / 'results.json').write_text(json.dumps(results))
  record = {'row': 'kd', 'seed': 0, 'split': 'train', 'step': 1, 'loss': 2.0}
  (folder / 'metrics.jsonl').write_text(json.dumps(record) + '\n')


def prepare_additions(space):
  del space
  np.save('digits.npy', _images())


PREPARE = {
  'export': prepare_export,
  'reading_results': prepare_results,
  'extending': prepare_additions,
}


def _key():
  import jax

  return jax.random.key(0)


def _images():
  return np.random.default_rng(0).integers(0, 255, (200, 8, 8, 1), np.uint8)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
  codes = blocks(page)
  if not codes:
    pytest.skip('the page has no code')
  monkeypatch.chdir(tmp_path)
  module = types.ModuleType('page')  # classes of a page need a module
  monkeypatch.setitem(sys.modules, 'page', module)
  PREPARE.get(page.stem, lambda space: None)(module.__dict__)
  for code in codes:
    exec(compile(shortened(code), page.name, 'exec'), module.__dict__)


def test_the_ten_lines_of_the_readme_are_those_of_the_quickstart():
  readme, quickstart = (
    blocks(ROOT / name)[0] for name in ('README.md', 'docs/quickstart.md')
  )
  assert readme == quickstart
  assert len([line for line in readme.splitlines() if line]) <= 10


def test_the_readme_is_short():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


def test_links_of_the_readme_and_the_pages_lead_to_files():
  for page in (ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')):
    if {'_build', '_generated'} & set(page.parts):
      continue
    prose = re.sub(r'(?ms)^```.*?^```', '', page.read_text())
    for target in re.findall(r'\]\(([^)#\s]+)', prose):
      if re.match('[a-z]+:', target) or target.startswith('/notebooks/'):
        continue
      base = ROOT / 'docs' if target.startswith('/') else page.parent
      assert (base / target.lstrip('/')).exists(), f'{page.name}: {target}'


def plan_of(arguments, monkeypatch):
  """Returns the plan that a command would run."""
  plans = []
  monkeypatch.setattr(
    study, 'run', lambda plan, *a, **k: plans.append(plan) or {}
  )
  monkeypatch.setattr(report, 'as_text', lambda results: '')
  assert main.run(arguments) == 0
  (plan,) = plans
  return plan


@pytest.mark.parametrize('page', CONFIG_PAGES, ids=lambda page: page.stem)
def test_the_config_of_a_page_is_valid(page, tmp_path, monkeypatch):
  (code,) = (code for code in blocks(page) if 'get_config' in code)
  monkeypatch.chdir(tmp_path)
  pathlib.Path('config.py').write_text(code)
  images = np.repeat(_images(), 3, -1)
  labels = np.arange(200) % 10
  np.savez(
    'cifar10.npz',
    train_image=images,
    train_label=labels,
    test_image=images,
    test_label=labels,
  )
  plan = plan_of(['--config=config.py'], monkeypatch)
  assert len(plan.rows) > 2


@pytest.mark.parametrize(
  'overrides',
  [
    [
      '--config.student.name=my_file:my_network',
      '--config.optimizer.name=my_file:my_optimizer',
      '--config.initial.name=my_file:my_weights',
      '--config.task.name=my_file:my_task',
    ],
    [
      '--config.method.name=joint',
      "--config.method.terms={'mine': {'name': 'my_file:my_loss'}}",
    ],
    ['--config.method.name=my_file:my_method'],
    ['--config.data.name=my_file:my_data'],
  ],
)
def test_a_config_can_name_a_function_of_my_file(
  overrides, tmp_path, monkeypatch
):
  np.save(tmp_path / 'digits.npy', _images())
  (tmp_path / 'config.py').write_text(
    'def get_config():\n'
    "  small = {'name': 'resnet8', 'widths': (2, 2, 2)}\n"
    "  return {'data': {'name': 'digits'}, 'student': small,\n"
    "    'teacher': small, 'method': {'name': 'kd'}, 'epochs': 1}\n"
  )
  module = types.ModuleType('my_file')
  code = blocks(ROOT / 'docs/guides/extending.md')[0]
  assert code.startswith('# my_file.py')
  exec(code, module.__dict__)
  monkeypatch.setitem(sys.modules, 'my_file', module)
  monkeypatch.chdir(tmp_path)
  plan = plan_of(['--config=config.py', *overrides], monkeypatch)
  assert [row.role for row in plan.rows] == ['teacher', 'student']
