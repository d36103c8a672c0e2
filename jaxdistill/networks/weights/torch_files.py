"""Reads tensors from files of `torch.save`, without PyTorch.

Such a file is a pickle, and a pickle can run any program. Therefore only the
functions that rebuild tensors are admitted. Everything else that a file asks
for, such as the options of a training, becomes an inert `_Placeholder`: nothing
of that name is imported or called.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
import functools
import io
import math
import os
import pickle
from typing import Any, ClassVar, NamedTuple
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
# Where checkpoints keep their dictionary of tensors, the best place first. A
# file that holds a student and a teacher does not say which of them is meant.
CONTAINERS = (
  *('state_dict', 'model', 'model_state_dict', 'model_state', 'net'),
  *('network', 'params', 'weights', 'module', ('student', 'teacher')),
  *('backbone', 'state_dict_ema', 'model_ema', 'ema', 'ema_state_dict'),
  'params_ema',
)
# The types of keys of dictionaries, or of the parts of a key.
_KEYS = (str, bytes, int, float, bool, type(None))
# How many dictionaries deep the tensors may be.
_DEPTH = 3


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns name -> tensor of a `.pth` file.

  The dictionary of tensors may be nested in others, beside anything else. If
  there are several, the one with the first name of `CONTAINERS` is taken.

  Raises:
    UsageError: the file is missing or unreadable, or does not say which
      dictionary of tensors is meant.
  """
  try:
    with open(path, 'rb') as file:
      is_zip = zipfile.is_zipfile(file)
      file.seek(0)
      return _read_zip(file) if is_zip else _read_old(file)
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


class _Refused(Exception):
  """The file does not hold what it should."""


class _Placeholder:
  """Stands for an object of a class that is not admitted; it does nothing.

  A pickle calls the class, and fills the object in the ways of objects, lists,
  dictionaries and sets.
  """

  reference = ''

  def __new__(cls, *arguments: Any, **options: Any) -> '_Placeholder':
    del arguments, options
    return super().__new__(cls)

  def __init__(self, *arguments: Any, **options: Any):
    del arguments, options

  def __setstate__(self, state: Any) -> None:
    del state

  def __setitem__(self, key: Any, value: Any) -> None:
    del key, value

  def _ignore(self, value: Any) -> None:
    del value

  append = extend = add = _ignore


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


def _ordered_dictionary(items: Any = ()) -> OrderedDict[Any, Any]:
  """Replaces OrderedDict; old files pass all items at once."""
  if any(type(key) not in _KEYS for key, _ in items):
    raise _Refused('has a key of a dictionary that is not a string or number')
  return OrderedDict(items)


_ADMITTED: dict[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): _ordered_dictionary,
  ('torch', 'Size'): tuple,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
  **{('torch', name): name for name in _DTYPES},
}


class _Unpickler(pickle._Unpickler):
  """Unpickles tensors, dictionaries and plain values; see `_Placeholder`.

  This is the version in Python, whose steps can be checked: the hash of a
  deeply nested key would end the process.

  Attributes:
    storages: key -> storage, for all storages that the pickle names.
  """

  dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

  def __init__(self, file: Any):
    super().__init__(file)
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      reference = {'reference': f'{module}.{name}'}
      return type('_Placeholder', (_Placeholder,), reference)
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
    if not isinstance(dtype, str):
      raise _Refused(f'holds {_words(dtype)}, whose numbers cannot be read')
    storage = _Storage(str(key), np.dtype(_DTYPES[dtype]), int(count))
    return self.storages.setdefault(storage.key, storage)


def _checked(
  load: Callable[[Any], None], hashed: slice
) -> Callable[[Any], None]:
  """Returns a step of the unpickler that checks what it is going to hash.

  Args:
    load: the step.
    hashed: where the objects to hash are in the stack of the unpickler.
  """

  def checked(unpickler: Any) -> None:
    for key in unpickler.stack[hashed]:
      parts = key if type(key) is tuple else (key,)
      if any(type(part) not in _KEYS for part in parts):
        raise _Refused(f'has {_words(key)} as a key of a dictionary')
    load(unpickler)

  return checked


for _code, _hashed in (
  (pickle.SETITEM, slice(-2, -1)),
  (pickle.SETITEMS, slice(None, None, 2)),
  (pickle.DICT, slice(None, None, 2)),
  (pickle.ADDITEMS, slice(None)),
  (pickle.FROZENSET, slice(None)),
):
  _Unpickler.dispatch[_code[0]] = _checked(
    _Unpickler.dispatch[_code[0]], _hashed
  )


def _read_zip(file: Any) -> dict[str, np.ndarray]:
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
    pickled = archive.read(f'{root}data.pkl')
    views = _views(_Unpickler(io.BytesIO(pickled)).load())
    storages = {view.storage.key: view.storage for view in views.values()}
    values = {
      key: _values(storage, storage.size, archive.read(f'{root}data/{key}'))
      for key, storage in storages.items()
    }
  return _arrays(views, values)


def _read_old(file: Any) -> dict[str, np.ndarray]:
  """Reads several pickles, then the storages one after the other."""
  magic = _Unpickler(file).load()
  if magic != _OLD_MAGIC:
    raise _Refused(f'expected a file of torch.save, got {_words(magic)}')
  _, system = (_Unpickler(file).load() for _ in range(2))
  if not system[_OLD_LITTLE_ENDIAN]:
    raise _Refused('was written on a big-endian machine')
  unpickler = _Unpickler(file)
  content, keys = unpickler.load(), _Unpickler(file).load()
  views = _views(content)
  values = {}
  for key in map(str, keys):
    storage = unpickler.storages[key]
    count = int.from_bytes(file.read(8), 'little')
    data = file.read(count * storage.dtype.itemsize)
    values[key] = _values(storage, count, data)
  return _arrays(views, values)


def _values(storage: _Storage, count: int, data: bytes) -> np.ndarray:
  if len(data) != count * storage.dtype.itemsize:
    raise _Refused(f'a storage of {count} values has {len(data)} bytes')
  return np.frombuffer(data, storage.dtype)


def _views(content: Any) -> dict[str, _View]:
  """Returns the dictionary of tensors in what a file holds."""
  found = dict(_dictionaries(content, (), set(), _is_view))
  if not found:  # maybe options lie among the tensors of the dictionary
    found = dict(_dictionaries(content, (), set(), _is_no_dictionary))
  if not found:
    raise _Refused(_problem(content))
  if len(found) == 1:
    (views,) = found.values()
    return views
  for container in CONTAINERS:
    names = {container} if isinstance(container, str) else {*container}
    inside = [views for place, views in found.items() if names & {*place}]
    if len(inside) == 1:
      return inside[0]
    if inside:  # they have the same rank
      break
  places = ', '.join(repr('.'.join(place)) for place in found)
  raise _Refused(
    f'holds several dictionaries of tensors ({places}); save only the '
    'state_dict'
  )


def _dictionaries(
  content: Any,
  place: tuple[str, ...],
  seen: set[int],
  may_hold: Callable[[Any], bool],
) -> Iterator[tuple[tuple[str, ...], dict[str, _View]]]:
  """Yields (keys that lead to it, dictionary) of dictionaries of tensors.

  Args:
    content: what to search.
    place: the keys that lead to it.
    seen: the identities of what has been searched; a hostile file can hold one
      dictionary at more places than could ever be searched.
    may_hold: says which values a dictionary of tensors may have.
  """
  is_empty = not isinstance(content, Mapping) or not content
  if is_empty or id(content) in seen or len(place) > _DEPTH:
    return
  seen.add(id(content))
  views = {str(k): v for k, v in content.items() if _is_view(v)}
  if views and all(map(may_hold, content.values())):
    yield place, views
    return
  for key, value in content.items():
    if isinstance(key, str):  # an optimizer numbers its tensors
      yield from _dictionaries(value, (*place, key), seen, may_hold)


def _is_view(value: Any) -> bool:
  return isinstance(value, _View)


def _is_no_dictionary(value: Any) -> bool:
  return not isinstance(value, Mapping)


def _problem(content: Any) -> str:
  """Says why what a file holds is no dictionary of tensors."""
  problem = 'holds no dictionary of tensors'
  if not isinstance(content, Mapping):
    return f'{problem} but {_words(content)}; save only the state_dict'
  for name, value in content.items():
    if not isinstance(value, (_View, Mapping)):
      return f'{problem}: {name!r} is not a tensor but {_words(value)}'
  return problem


def _words(value: Any) -> str:
  """Says what kind of object a file holds."""
  kind = value if isinstance(value, type) else type(value)
  if issubclass(kind, _Placeholder):
    return f'an object of {kind.reference!r}'
  return f'an object of {kind.__name__!r}'


def _arrays(
  views: Mapping[str, _View], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns the tensors of views, given the numbers of their storages."""
  return {
    name: _array(view, values[view.storage.key]) for name, view in views.items()
  }
