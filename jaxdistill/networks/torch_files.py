"""Tensors in the files of `torch.save`, read without PyTorch.

Such a file is a pickle, and a pickle can run any program. Here only what
rebuilds tensors is admitted; anything else a file asks for is refused by name.
"""

from collections import OrderedDict
from collections.abc import Mapping
import functools
import io
import os
import pickle
from typing import Any, NamedTuple
import zipfile

import jax.numpy as jnp
import numpy as np

from jaxdistill.types import UsageError

_DTYPES: dict[str, Any] = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': jnp.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
# The first pickle of a file older than PyTorch 1.6, and its third.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_LITTLE_ENDIAN = 'little_endian'


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Name -> tensor of a `.pth` file.

  The dictionary of tensors may lie in the file under 'state_dict', 'model' or
  'model_state_dict', beside plain values.

  Raises:
    UsageError: the file is missing, unreadable, asks for anything but tensors,
      or holds no dictionary of them.
  """
  try:
    with open(path, 'rb') as file:
      is_zip = zipfile.is_zipfile(file)
      file.seek(0)
      content = _read_zip(file) if is_zip else _read_old(file)
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except _Refused as error:
    raise UsageError(f'{path}: {error}') from None
  except Exception as error:
    # A damaged pickle can fail in any way; none of them is a crash of ours.
    raise UsageError(
      f'{path}: not readable as PyTorch file ({error})'
    ) from None
  for key in ('state_dict', 'model', 'model_state_dict'):
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
      content = content[key]
  if not isinstance(content, Mapping) or not all(
    isinstance(tensor, np.ndarray) for tensor in content.values()
  ):
    raise UsageError(f'{path}: holds no dictionary of tensors')
  return {str(name): tensor for name, tensor in content.items()}


class _Refused(Exception):
  """The file asks for something that is no tensor."""


class _Storage:
  """The numbers that tensors are views of; filled in later in old files."""

  def __init__(self, dtype: Any, count: int):
    self.dtype = np.dtype(dtype)
    self.count = count
    self.values = np.zeros(0, self.dtype)

  def fill(self, data: bytes) -> None:
    if len(data) != self.count * self.dtype.itemsize:
      raise _Refused(f'a storage of {self.count} values has {len(data)} bytes')
    self.values = np.frombuffer(data, self.dtype)


class _View(NamedTuple):
  """A tensor: a strided view of a storage."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def array(self) -> np.ndarray:
    values, numbers = self.storage.values, (*self.shape, *self.strides)
    last = sum((n - 1) * s for n, s in zip(self.shape, self.strides))
    if self.offset < 0 or any(n < 0 for n in numbers):
      raise _Refused('a tensor has a negative shape or stride')
    if 0 in self.shape:
      return np.zeros(self.shape, values.dtype)
    if self.offset + last >= values.size:
      raise _Refused('a tensor reaches beyond its storage')
    view = np.lib.stride_tricks.as_strided(
      values[self.offset :],
      self.shape,
      [s * values.itemsize for s in self.strides],
    )
    return view.copy()


def _rebuild_tensor(storage, offset, shape, strides, *rest):
  """torch._utils._rebuild_tensor_v2; hooks and gradients are left behind."""
  del rest
  if not isinstance(storage, _Storage):
    raise _Refused('a tensor without storage')
  return _View(storage, int(offset), tuple(shape), tuple(strides))


def _rebuild_parameter(data, *rest):
  del rest
  return data


_ADMITTED: dict[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch', 'Size'): tuple,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
  **{('torch', name): name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
  """Admits tensors, dictionaries and plain values."""

  def __init__(self, file: Any, storages: dict[str, _Storage]):
    super().__init__(file)
    self._storages = storages

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      raise _Refused(
        f'asks for {module}.{name}, which is no tensor; save the state_dict '
        'alone'
      )
    found = _ADMITTED[module, name]
    # A pickle may set attributes of what it was given: not those of ours.
    return functools.partial(found) if callable(found) else found

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, count, *_ = pid
    if kind != 'storage':
      raise _Refused(f'asks for a {kind!r}, which is no storage of a tensor')
    if key not in self._storages:
      self._storages[key] = _Storage(_DTYPES[dtype], count)
    return self._storages[key]


def _read_zip(file: Any) -> Any:
  with zipfile.ZipFile(file) as archive:
    names = archive.namelist()
    root = next(n for n in names if n.endswith('/data.pkl'))[: -len('data.pkl')]
    order = f'{root}byteorder'
    if order in names and archive.read(order) != b'little':
      raise _Refused('written on a big-endian machine')
    storages: dict[str, _Storage] = {}
    pickled = io.BytesIO(archive.read(f'{root}data.pkl'))
    content = _Unpickler(pickled, storages).load()
    for key, storage in storages.items():
      storage.fill(archive.read(f'{root}data/{key}'))
  return _arrays(content)


def _read_old(file: Any) -> Any:
  """Several pickles in a row, then the storages one after the other."""
  storages: dict[str, _Storage] = {}
  magic, _, system, content, keys = (
    _Unpickler(file, storages).load() for _ in range(5)
  )
  if magic != _OLD_MAGIC:
    raise _Refused('no file of torch.save')
  if not system[_OLD_LITTLE_ENDIAN]:
    raise _Refused('written on a big-endian machine')
  for key in keys:
    storage = storages[key]
    storage.count = int.from_bytes(file.read(8), 'little')
    storage.fill(file.read(storage.count * storage.dtype.itemsize))
  return _arrays(content)


def _arrays(value: Any) -> Any:
  """Dictionaries with their views made into arrays."""
  if isinstance(value, _View):
    return value.array()
  if isinstance(value, Mapping):
    return {k: _arrays(v) for k, v in value.items()}
  return value
