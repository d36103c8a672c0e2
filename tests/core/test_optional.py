"""Optional packages: found, or named together with how to install them."""

import sys

import pytest

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError


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
      'onnxruntime',
      r"pip install 'jaxdistill\[onnx\]' && pip install --no-deps",
    ),
    ('ai_edge_litert.interpreter', r"pip install 'jaxdistill\[tflite\]'"),
  ],
)
def test_a_missing_package_is_named_with_how_to_install_it(
  module, message, monkeypatch
):
  package = module.partition('.')[0]
  monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UsageError, match=message) as error:
    optional.require(module, 'the plot')
  assert str(error.value).startswith('the plot needs ')
  assert '\n' not in str(error.value)


def test_a_missing_module_within_a_package_is_not_hidden(tmp_path, monkeypatch):
  (tmp_path / 'half_installed.py').write_text('import no_such_dependency\n')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match='no_such_dependency'):
    optional.require('half_installed')
