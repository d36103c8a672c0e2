"""Optional packages: found, or named together with how to install them."""

from importlib import metadata
import pathlib
import re
import sys
import tomllib

import pytest

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

ROOT = pathlib.Path(optional.__file__).parents[2]


def test_an_installed_module_is_returned():
  assert optional.require('json.decoder') is sys.modules['json.decoder']


@pytest.mark.parametrize(
  ('module', 'message'),
  [
    ('no_such_package', 'needs no_such_package: pip install no_such_package'),
    ('no_such_package.part', 'needs no_such_package: pip install no_such_pack'),
    ('sklearn.manifold', 'needs sklearn: pip install scikit-learn'),
    ('tensorflow_datasets', 'pip install tensorflow-datasets'),
    ('PIL.Image', 'pip install pillow'),
    (
      'jax2onnx',
      r"pip install 'jaxdistill\[onnx\]' && pip install --no-deps jax2onnx",
    ),
    ('litert_converter.mlir', r"pip install 'jaxdistill\[tflite\]'"),
    ('onnxruntime', 'pip install onnxruntime'),
    ('ai_edge_litert.interpreter', 'pip install ai-edge-litert'),
  ],
)
def test_a_missing_package_is_named_with_how_to_install_it(
  module, message, monkeypatch
):
  package = module.partition('.')[0]
  monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setitem(sys.modules, package, None)
  monkeypatch.setattr(metadata, 'distribution', lambda name: name)
  with pytest.raises(UsageError, match=message) as error:
    optional.require(module, 'the plot')
  assert str(error.value).startswith('the plot needs ')
  assert '\n' not in str(error.value)
  with pytest.raises(UsageError, match=message):
    optional.check(package, 'the plot')


def test_an_installed_package_is_found_without_being_imported(
  tmp_path, monkeypatch
):
  (tmp_path / 'package_that_fails.py').write_text('1 / 0')
  monkeypatch.syspath_prepend(tmp_path)
  optional.check('package_that_fails', 'the plot')


def test_a_copy_that_is_not_installed_is_named_by_its_folder(monkeypatch):
  def distribution(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, 'distribution', distribution)
  monkeypatch.setitem(sys.modules, 'wandb', None)
  command = f"pip install -e '{ROOT}[wandb]'"
  with pytest.raises(UsageError, match=re.escape(command)):
    optional.require('wandb')


def test_the_extras_of_messages_exist_and_install_what_is_missing():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extras = project['optional-dependencies']
  for module, extra in optional.EXTRAS.items():
    if module != 'jax2onnx':  # it is installed besides, without requirements
      names = [re.split('[<>=]', entry)[0] for entry in extras[extra]]
      assert module.replace('_', '-') in [n.replace('_', '-') for n in names]


def test_a_missing_module_within_a_package_is_not_hidden(tmp_path, monkeypatch):
  (tmp_path / 'half_installed.py').write_text('import no_such_dependency\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match='no_such_dependency'):
    optional.require('half_installed')
