"""Tensors in the files of `torch.save`, read without PyTorch.

Such a file is a pickle, and a pickle can run any program. Here only what
rebuilds tensors is admitted; anything else a file asks for is refused by name.
"""

from collections import OrderedDict
from collections.abc import Mapping
import functools
import io
import math
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
    # What it says may be text of the file, so it is quoted for the terminal.
    raise UsageError(
      f'{path}: not readable as PyTorch file ({type(error).__name__}: '
      f'{str(error)!r})'
    ) from None
  for key in ('state_dict', 'model', 'model_state_dict'):
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
      content = content[key]
  if not isinstance(content, Mapping):
    raise UsageError(f'{path}: holds no dictionary of tensors')
  for name, tensor in content.items():
    if not isinstance(tensor, np.ndarray):
      raise UsageError(
        f'{path}: holds no dictionary of tensors: {name!r} is no tensor'
      )
  return {str(name): tensor for name, tensor in content.items()}


class _Refused(Exception):
  """The file asks for something that is no tensor."""


class _Storage(NamedTuple):
  """Stands for the numbers that tensors are views of; a pickle sees it."""

  key: str
  dtype: np.dtype
  size: int


class _View(NamedTuple):
  """Stands for a tensor: a strided view of a storage."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _array(view: _View, values: np.ndarray) -> np.ndarray:
  """The tensor that a view of these numbers is."""
  _, offset, shape, strides = view
  last = sum((n - 1) * s for n, s in zip(shape, strides))
  if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
    raise _Refused('a tensor has a negative shape or stride')
  if 0 in shape:
    return np.zeros(shape, values.dtype)
  if offset + last >= values.size:
    raise _Refused('a tensor reaches beyond its storage')
  if math.prod(shape) > values.size:
    # A few bytes could otherwise ask for all memory.
    raise _Refused(
      f'a tensor of shape {shape} has more values than its storage'
    )
  steps = [s * values.itemsize for s in strides]
  return np.lib.stride_tricks.as_strided(
    values[offset:], shape, steps, writeable=False
  )


def _rebuild_tensor(storage, offset, shape, strides, *rest):
  """torch._utils._rebuild_tensor_v2; hooks and gradients are left behind."""
  del rest
  if not isinstance(storage, _Storage):
    raise _Refused('a tensor without storage')
  shape, strides = tuple(shape), tuple(strides)
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise _Refused('a tensor whose shape is no whole numbers')
  return _View(storage, offset, shape, strides)


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
  """Admits tensors, dictionaries and plain values.

  Attributes:
    storages: key -> storage that the pickle names.
  """

  def __init__(self, file: Any):
    super().__init__(file)
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      raise _Refused(
        f'asks for {f"{module}.{name}"!r}, which is no tensor; save the '
        'state_dict alone'
      )
    found = _ADMITTED[module, name]
    # A pickle may set attributes of what it was given: not those of ours.
    return functools.partial(found) if callable(found) else found

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, count, *rest = pid
    if kind != 'storage':
      raise _Refused(f'asks for a {kind!r}, which is no storage of a tensor')
    if any(part is not None for part in rest):
      raise _Refused('a storage that is a view of another; save the file anew')
    storage = _Storage(str(key), np.dtype(_DTYPES[dtype]), int(count))
    return self.storages.setdefault(storage.key, storage)


def _read_zip(file: Any) -> Any:
  with zipfile.ZipFile(file) as archive:
    # torch.save compresses nothing; a few deflated bytes can be many.
    for member in archive.infolist():
      if member.compress_type != zipfile.ZIP_STORED:
        raise _Refused(f'its part {member.filename!r} is compressed')
    names = archive.namelist()
    root = next(n for n in names if n.endswith('/data.pkl'))[: -len('data.pkl')]
    order = f'{root}byteorder'
    if order in names and archive.read(order) != b'little':
      raise _Refused('written on a big-endian machine')
    unpickler = _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')))
    content = unpickler.load()
    values = {
      key: _values(storage, storage.size, archive.read(f'{root}data/{key}'))
      for key, storage in unpickler.storages.items()
    }
  return _arrays(content, values)


def _read_old(file: Any) -> Any:
  """Several pickles in a row, then the storages one after the other."""
  magic, _, system = (_Unpickler(file).load() for _ in range(3))
  if magic != _OLD_MAGIC:
    raise _Refused('no file of torch.save')
  if not system[_OLD_LITTLE_ENDIAN]:
    raise _Refused('written on a big-endian machine')
  unpickler = _Unpickler(file)
  content, keys = unpickler.load(), _Unpickler(file).load()
  values = {}
  for key in map(str, keys):
    storage = unpickler.storages[key]
    count = int.from_bytes(file.read(8), 'little')
    data = file.read(count * storage.dtype.itemsize)
    values[key] = _values(storage, count, data)
  return _arrays(content, values)


def _values(storage: _Storage, count: int, data: bytes) -> np.ndarray:
  if len(data) != count * storage.dtype.itemsize:
    raise _Refused(f'a storage of {count} values has {len(data)} bytes')
  return np.frombuffer(data, storage.dtype)


def _arrays(value: Any, values: Mapping[str, np.ndarray]) -> Any:
  """Dictionaries with their views made into arrays."""
  if isinstance(value, _View):
    return _array(value, values[value.storage.key])
  if isinstance(value, Mapping):
    return {k: _arrays(v, values) for k, v in value.items()}
  return value
