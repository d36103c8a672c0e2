"""The formats by name: how a file is written, read, and what that needs."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.networks.weights import files
from jaxdistill.study import stablehlo
from jaxdistill.study.formats import onnx, tflite
from jaxdistill.study.formats.source import Run, Source


class Format(NamedTuple):
  """A kind of file.

  Attributes:
    write: (source, path) -> None.
    read: (source, path) -> the function that the file holds.
    packages: the packages that it needs besides those of the library.
    runtime: the package that runs a file, if that is not JAX; the latency is
      measured with it.
    batch: the batch sizes that the program takes, 'B' or '1'; '' if the file
      holds variables and no program.
    quantize: (path, raw training images, 'weights' or 'full') -> None; replaces
      the file by a smaller one. None: the format cannot be quantised.
    loading: Python code that runs a file called FILE, for the model card.
  """

  write: Callable[[Source, pathlib.Path], None]
  read: Callable[[Source, pathlib.Path], Run]
  packages: tuple[str, ...] = ()
  runtime: str = ''
  batch: str = ''
  quantize: Callable[[pathlib.Path, np.ndarray, tflite.Int8], None] | None = (
    None
  )
  loading: str = ''


def _write_safetensors(source: Source, path: pathlib.Path) -> None:
  files.save(path, source.model, source.about)


def _read_safetensors(source: Source, path: pathlib.Path) -> Run:
  describes_network = 'network' in files.load_tree(path)[1]
  network = None if describes_network else source.model.network
  model = files.load(path, network)
  return lambda images: stablehlo.outputs(
    model.network,
    source.preprocess,
    source.final,
    model.variables,
    jnp.asarray(images),
  )


def _write_stablehlo(source: Source, path: pathlib.Path) -> None:
  program = stablehlo.to_stablehlo(
    source.model,
    source.image_shape,
    preprocess=source.preprocess,
    final=source.final,
  )
  stablehlo.save(path, program)


_LOAD_SAFETENSORS = """\
import jaxdistill as jd

student = jd.predictor('FILE')
predictions = student(raw_images)
outputs = student.outputs(raw_images)
"""
_LOAD_STABLEHLO = """\
import pathlib
from jax import export

program = export.deserialize(bytearray(pathlib.Path('FILE').read_bytes()))
outputs = program.call(raw_images)
"""
_LOAD_ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession('FILE')
# A list with one entry for each output.
outputs = session.run(None, {'image': raw_images})
"""
_LOAD_TFLITE = """\
from ai_edge_litert.interpreter import Interpreter

run = Interpreter('FILE').get_signature_runner()
outputs = run(image=raw_images)['output']
"""
# Format -> the function of a file's path that returns its program.
_PROGRAMS: dict[str, Callable[[pathlib.Path], Run]] = {
  'stablehlo': stablehlo.load,
  'onnx': onnx.read,
  'tflite': tflite.read,
}
FORMATS = {
  'safetensors': Format(
    _write_safetensors, _read_safetensors, loading=_LOAD_SAFETENSORS
  ),
  'stablehlo': Format(
    _write_stablehlo,
    lambda source, path: _PROGRAMS['stablehlo'](path),
    batch='B',
    loading=_LOAD_STABLEHLO,
  ),
  'onnx': Format(
    onnx.write,
    lambda source, path: _PROGRAMS['onnx'](path),
    onnx.PACKAGES,
    'onnxruntime',
    batch='B',
    loading=_LOAD_ONNX,
  ),
  'tflite': Format(
    tflite.write,
    lambda source, path: _PROGRAMS['tflite'](path),
    tflite.PACKAGES,
    'ai-edge-litert',
    batch='1',
    quantize=tflite.quantize,
    loading=_LOAD_TFLITE,
  ),
}


def check(kinds: Sequence[str], int8: str | None = None) -> None:
  """Checks that files of some formats can be written here.

  Args:
    kinds: names of formats.
    int8: how they shall be quantised, 'weights', 'full' or None.

  Raises:
    UsageError: a format does not exist, needs a package that is not installed,
      or cannot be quantised as `int8` says.
  """
  if int8 is not None:
    checks.choice('int8', int8, ('weights', 'full'))
  for kind in kinds:
    chosen = FORMATS[checks.choice('format', kind, FORMATS)]
    if int8 is not None and chosen.quantize is None:
      valid = ', '.join(k for k, v in FORMATS.items() if v.quantize)
      raise UsageError(f'int8: expected the format {valid}, got {kind!r}')
    for package in chosen.packages:
      optional.check(package, f'the format {kind}')


def write(source: Source, path: pathlib.Path, kind: str) -> None:
  """Writes a model as a file of a format.

  Args:
    source: the model.
    path: the file.
    kind: the name of the format.

  Raises:
    UsageError: the format cannot hold this model, or the file cannot be
      written.
  """
  with _in_one_line(f'{path}: the network cannot be written as {kind}'):
    FORMATS[kind].write(source, path)


def read(source: Source, path: pathlib.Path, kind: str) -> Run:
  """Returns the function that a file holds: raw images -> outputs.

  Args:
    source: the model that was written.
    path: the file.
    kind: the name of the format.

  Raises:
    UsageError: the runtime of the format cannot read or run the file.
  """
  return _guarded(path, kind, lambda: FORMATS[kind].read(source, path))


def program(path: pathlib.Path, kind: str) -> Run:
  """Returns the function that a program's file holds; see `read`.

  Args:
    path: the file.
    kind: the name of a format that holds a program.

  Raises:
    UsageError: the runtime is not installed, or cannot read or run the file.
  """
  return _guarded(path, kind, lambda: _PROGRAMS[kind](path))


def _guarded(path: pathlib.Path, kind: str, read: Callable[[], Run]) -> Run:
  """Reads a program, whose errors then become messages of one line."""
  what = f'{path}: the runtime of {kind} cannot run the network'
  with _in_one_line(what):
    run = read()

  def checked(images: Any) -> Any:
    with _in_one_line(what):
      return run(images)

  return checked


def quantize(path: pathlib.Path, images: np.ndarray, int8: tflite.Int8) -> None:
  """Replaces a file by its quantised form.

  Args:
    path: the file; its ending is a format that `check` has accepted.
    images: raw training images, uint8 `[N, H, W, C]`.
    int8: 'weights' or 'full'.

  Raises:
    UsageError: the network cannot be quantised.
  """
  function = FORMATS[path.suffix[1:]].quantize
  assert function is not None
  with _in_one_line(f'{path}: the network cannot be quantised'):
    function(path, images, int8)


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
  """Turns any error of a converter or a runtime into a UsageError."""
  try:
    yield
  except UsageError:
    raise
  except Exception as error:  # they raise errors of any type
    raise UsageError(f'{what} ({checks.reason(error)[:300]})') from error
