"""Packages that only some functions need, imported where they are used."""

import importlib
from importlib import metadata
import importlib.util
import pathlib
from typing import Any

from jaxdistill.core.checks import UsageError

# Module -> the extra of this library that installs it.
EXTRAS = {
  **{name: name for name in ('wandb', 'mlflow', 'trackio')},
  **dict.fromkeys(('jax2onnx', 'onnx', 'onnx_ir'), 'onnx'),
  **dict.fromkeys(('ai_edge_quantizer', 'litert_converter'), 'tflite'),
  'pycocotools': 'detection',
}
# The requirements of jax2onnx exclude the Orbax of this library, but it does
# not import Orbax.
_BESIDES = {'onnx': ' && pip install --no-deps jax2onnx'}
# What is installed for modules whose package has another name. The runtimes of
# exported files do not need the extras that write these files.
_DISTRIBUTIONS = {
  'PIL': 'pillow',
  'ai_edge_litert': 'ai-edge-litert',
  'sklearn': 'scikit-learn',
  'tensorflow_datasets': 'tensorflow-datasets',
}


def require(name: str, purpose: str = 'this function') -> Any:
  """Imports a module or says in one line how to install it.

  Args:
    name: the module, such as 'sklearn' or 'matplotlib.figure'.
    purpose: what needs the module, for the message: 'the t-SNE plot'.

  Returns:
    The module. The type is `Any` because type checkers cannot follow an import
    by name.

  Raises:
    UsageError: the package is not installed. A module that exists but fails
      to import something else raises that `ModuleNotFoundError` unchanged.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    package = name.partition('.')[0]
    if error.name is None or error.name.partition('.')[0] != package:
      raise
    raise _missing(package, purpose) from error


def check(package: str, purpose: str) -> None:
  """Checks that a package is installed, without importing it.

  Args:
    package: the name by which it is imported, such as 'sklearn'.
    purpose: what needs it, for the message.

  Raises:
    UsageError: it is not installed.
  """
  if importlib.util.find_spec(package) is None:
    raise _missing(package, purpose)


def _missing(package: str, purpose: str) -> UsageError:
  return UsageError(f'{purpose} needs {package}: {_command(package)}')


def _command(package: str) -> str:
  """Returns the command that installs a package."""
  extra = EXTRAS.get(package)
  if extra is None:
    return f'pip install {_DISTRIBUTIONS.get(package, package)}'
  try:
    metadata.distribution('jaxdistill')
    library = f"'jaxdistill[{extra}]'"
  except metadata.PackageNotFoundError:  # it runs from a copy of its source
    library = f"-e '{pathlib.Path(__file__).parents[2]}[{extra}]'"
  return f'pip install {library}{_BESIDES.get(extra, "")}'
