"""Packages that only some functions need, imported where they are used."""

import importlib
from typing import Any

from jaxdistill.core.checks import UsageError

# What is installed for modules whose package has another name, or needs others.
_TFLITE = "'jaxdistill[tflite]'"
# The requirements of jax2onnx exclude the Orbax of this library, but it does
# not import Orbax.
_ONNX = "'jaxdistill[onnx]' && pip install --no-deps jax2onnx"
_DISTRIBUTIONS = {
  'PIL': 'pillow',
  **{name: f"'jaxdistill[{name}]'" for name in ('wandb', 'mlflow', 'trackio')},
  **dict.fromkeys(('jax2onnx', 'onnx', 'onnx_ir', 'onnxruntime'), _ONNX),
  'pycocotools': "'jaxdistill[detection]'",
  'sklearn': 'scikit-learn',
  'tensorflow_datasets': 'tensorflow-datasets',
  **dict.fromkeys(
    ('ai_edge_litert', 'ai_edge_quantizer', 'litert_converter'), _TFLITE
  ),
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
    distribution = _DISTRIBUTIONS.get(package, package)
    raise UsageError(
      f'{purpose} needs {package}: pip install {distribution}'
    ) from error
