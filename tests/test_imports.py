"""What is imported when, and what happens without optional packages."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sklearn.datasets

from jaxdistill.data.sources import digits as digits_lib

OPTIONAL = (
  *('PIL', 'grain', 'matplotlib', 'sklearn', 'tensorboardX'),
  'tensorflow_datasets',
)
HIDE = f"""
import sys
for name in {OPTIONAL}:
  sys.modules[name] = None
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
  """Runs code in a new process."""
  return subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), *arguments],
    capture_output=True,
    text=True,
    check=True,
  )


def imported(code: str) -> set[str]:
  """Runs code in a new process; returns the top-level packages it imports."""
  lines = (
    textwrap.dedent(code),
    'import json, sys',
    "print(json.dumps([name.split('.')[0] for name in sys.modules]))",
  )
  return set(json.loads(run('\n'.join(lines)).stdout.splitlines()[-1]))


def test_importing_the_library_imports_neither_jax_nor_numpy():
  assert not {'jax', 'numpy', 'flax'} & imported('import jaxdistill')


@pytest.mark.parametrize(
  'code',
  [
    'import jaxdistill.losses',
    'import jaxdistill.data',
    'import jaxdistill as jd; jd.data.digits(train_subset=5)',
    'import jaxdistill as jd; jd.fit, jd.evaluate, jd.recipe',
  ],
)
def test_optional_packages_are_not_imported_before_they_are_needed(code):
  assert not {*OPTIONAL, 'orbax', 'torch'} & imported(code)


def test_public_names_of_the_data_package_are_imported_lazily():
  code = """
  import sys
  import jaxdistill.data
  assert set(jaxdistill.data.__all__) <= set(dir(jaxdistill.data))
  assert 'jax' not in sys.modules
  for name in jaxdistill.data.__all__:
    assert callable(getattr(jaxdistill.data, name)), name
  try:
    jaxdistill.data.no_such_name
  except AttributeError as error:
    print(error)
  """
  assert "has no attribute 'no_such_name'" in run(code).stdout


def test_flax_nnx_is_imported_only_where_a_module_is_adopted():
  code = """
  import sys
  import jaxdistill.study.runs
  from jaxdistill import networks
  from jaxdistill.networks import adapters
  assert 'flax.nnx' not in sys.modules
  for package in (networks, adapters):
    assert {'from_nnx', 'to_nnx'} <= set(dir(package))
  assert networks.from_nnx is adapters.from_nnx
  print('flax.nnx' in sys.modules)
  """
  assert run(code).stdout == 'True\n'


def test_training_works_without_optional_packages(tmp_path):
  """TensorBoard files are left out, and one line says so."""
  code = f"""
  {HIDE.replace(chr(10), chr(10) + '  ')}
  import pathlib
  import jax.numpy as jnp
  import numpy as np
  import jaxdistill as jd
  from jaxdistill.training.log import Log

  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (12, 4, 4, 1), np.uint8)
  columns = image, np.arange(12) % 3
  dataset = jd.data.from_arrays(*columns, *columns)

  def step(state, frozen, batches, rng, static):
    return {{'w': state['w'] + 1}}, {{'loss': batches['train']['label'].mean()}}

  def build(carry):
    return jd.Phase(
      name='count',
      num_steps=4,
      streams={{'train': jd.Stream(4, jd.data.crop_flip())}},
      init=lambda rng, carry: ({{'w': jnp.zeros(())}}, {{}}),
      step=step,
      finish=lambda state, frozen, carry: state,
    )

  for name in ('a', 'b'):
    log = Log(sys.argv[1], name=name, show=False)
    options = jd.FitOptions(log=log, log_every=2)
    fitted = jd.fit((build,), {{}}, dataset, options=options)
    assert float(fitted.carry['w']) == 4
  assert len(jd.losses.__all__) > 10
  """
  (line,) = run(code, str(tmp_path)).stderr.splitlines()
  assert line == (
    'jaxdistill: no TensorBoard files are written; TensorBoard output needs '
    'tensorboardX: pip install tensorboardX'
  )
  assert (tmp_path / 'metrics.jsonl').exists()
  assert not (tmp_path / 'tensorboard').exists()


@pytest.mark.parametrize(
  ('code', 'package'),
  [
    ('jd.data.digits()', 'scikit-learn'),
    ("jd.data.tfds('cifar10')", 'tensorflow-datasets'),
    ("jd.data.folder('tests', test=0.5)", 'pillow'),
    (
      'from jaxdistill.data.loading import streaming;'
      'import numpy as np;'
      "x = streaming.StreamedBatches({'x': np.arange(9)}, 3, (0,), workers=0);"
      'x(0), x(1)',
      'grain',
    ),
  ],
)
def test_a_missing_package_is_reported_in_one_line(code, package):
  lines = (
    HIDE,
    'import jaxdistill as jd',
    'try:',
    f'  {code}',
    'except jd.UsageError as error:',
    '  print(error)',
  )
  (line,) = run('\n'.join(lines)).stdout.splitlines()
  assert line.endswith(f': pip install {package}')


def test_digits_are_read_like_scikit_learn_reads_them(monkeypatch):
  expected = sklearn.datasets.load_digits()
  pixels, label = digits_lib._load()
  assert pixels.dtype == expected.images.dtype
  assert label.dtype == expected.target.dtype
  np.testing.assert_array_equal(pixels, expected.images)
  np.testing.assert_array_equal(label, expected.target)
  # If the file is elsewhere, scikit-learn's own function reads it.
  monkeypatch.setattr(digits_lib, '_FILE', 'missing.csv.gz')
  assert digits_lib._read_file() is None
  pixels, label = digits_lib._load()
  np.testing.assert_array_equal(pixels, expected.images)
  np.testing.assert_array_equal(label, expected.target)
