"""Reads tensors from files of `torch.save`, without PyTorch.

Such a file is a pickle, and a pickle can run any program. Therefore only the
functions that rebuild tensors are admitted. If a file asks for anything else,
it is rejected with a message that names it.
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

from jaxdistill.core.checks import UsageError

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
# The first pickle of a file from before PyTorch 1.6, and a key of its third.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_LITTLE_ENDIAN = 'little_endian'


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Returns name -> tensor of a `.pth` file.

  The dictionary of tensors may be stored under 'state_dict', 'model' or
  'model_state_dict', next to plain values.

  Raises:
    UsageError: the file is missing or unreadable, asks for anything but
      tensors, or holds no dictionary of them.
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
    # A damaged pickle can fail in any way, and none of them is a fault of this
    # code. The message may contain text of the file, so it is quoted.
    raise UsageError(
      f'{path}: expected a PyTorch file ({type(error).__name__}: '
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
        f'{path}: holds no dictionary of tensors: {name!r} is not a tensor'
      )
  return {str(name): tensor for name, tensor in content.items()}


class _Refused(Exception):
  """The file asks for something other than tensors."""


class _Storage(NamedTuple):
  """Represents the numbers of which tensors are views, while unpickling."""

  key: str
  dtype: np.dtype
  size: int


class _View(NamedTuple):
  """Represents a tensor, a strided view of a storage, while unpickling."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _array(view: _View, values: np.ndarray) -> np.ndarray:
  """Returns the tensor of a view, given the numbers of its storage."""
  _, offset, shape, strides = view
  last = sum((n - 1) * s for n, s in zip(shape, strides))
  if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
    raise _Refused('a tensor has a negative shape or stride')
  if 0 in shape:
    return np.zeros(shape, values.dtype)
  if offset + last >= values.size:
    raise _Refused('a tensor reaches beyond its storage')
  if math.prod(shape) > values.size:
    # Otherwise a file of a few bytes could exhaust the memory.
    raise _Refused(
      f'a tensor of shape {shape} has more values than its storage'
    )
  steps = [s * values.itemsize for s in strides]
  return np.lib.stride_tricks.as_strided(
    values[offset:], shape, steps, writeable=False
  )


def _rebuild_tensor(storage, offset, shape, strides, *rest):
  """Replaces torch._utils._rebuild_tensor_v2; drops hooks and gradients."""
  del rest
  if not isinstance(storage, _Storage):
    raise _Refused('a tensor has no storage')
  shape, strides = tuple(shape), tuple(strides)
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise _Refused('the shape of a tensor is not made of whole numbers')
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
  """Unpickles only tensors, dictionaries and plain values.

  Attributes:
    storages: key -> storage, for all storages that the pickle names.
  """

  def __init__(self, file: Any):
    super().__init__(file)
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      raise _Refused(
        f'asks for {f"{module}.{name}"!r}, which is not a tensor; save only '
        'the state_dict'
      )
    admitted = _ADMITTED[module, name]
    # A pickle may set attributes of the object that it receives, so it receives
    # a copy.
    return functools.partial(admitted) if callable(admitted) else admitted

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, count, *rest = pid
    if kind != 'storage':
      raise _Refused(f'asks for a {kind!r}, which is not a storage of a tensor')
    if any(part is not None for part in rest):
      raise _Refused('a storage is a view of another one; save the file again')
    storage = _Storage(str(key), np.dtype(_DTYPES[dtype]), int(count))
    return self.storages.setdefault(storage.key, storage)


def _read_zip(file: Any) -> Any:
  with zipfile.ZipFile(file) as archive:
    # torch.save does not compress, and a few compressed bytes can expand to
    # many.
    for member in archive.infolist():
      if member.compress_type != zipfile.ZIP_STORED:
        raise _Refused(f'its part {member.filename!r} is compressed')
    names = archive.namelist()
    root = next(n for n in names if n.endswith('/data.pkl'))[: -len('data.pkl')]
    order = f'{root}byteorder'
    if order in names and archive.read(order) != b'little':
      raise _Refused('was written on a big-endian machine')
    unpickler = _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')))
    content = unpickler.load()
    values = {
      key: _values(storage, storage.size, archive.read(f'{root}data/{key}'))
      for key, storage in unpickler.storages.items()
    }
  return _arrays(content, values)


def _read_old(file: Any) -> Any:
  """Reads several pickles, then the storages one after the other."""
  magic, _, system = (_Unpickler(file).load() for _ in range(3))
  if magic != _OLD_MAGIC:
    raise _Refused('expected a file of torch.save')
  if not system[_OLD_LITTLE_ENDIAN]:
    raise _Refused('was written on a big-endian machine')
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
  """Returns dictionaries in which arrays have replaced the views."""
  if isinstance(value, _View):
    return _array(value, values[value.storage.key])
  if isinstance(value, Mapping):
    return {k: _arrays(v, values) for k, v in value.items()}
  return value
