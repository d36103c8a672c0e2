"""Reading files of torch.save: tensors are read, and nothing is executed."""

from collections import OrderedDict
import io
import os
import pickle
import struct
import sys
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.networks.weights import pretrained, torch_files

NETWORK = networks.NETWORKS['resnet8'](
  num_classes=3, stem_width=2, widths=(2, 3, 4)
)
EXAMPLE = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}
TYPES = {
  np.dtype(np.float32): 'FloatStorage',
  np.dtype(np.float16): 'HalfStorage',
  np.dtype(np.int64): 'LongStorage',
}


class Call:
  """Pickles as a call of `module.name`, without that module."""

  def __init__(self, module, name, *arguments):
    self.module, self.name, self.arguments = module, name, arguments


class Storage:
  """Pickles as the persistent id of a storage."""

  def __init__(self, key, values, old=False, view=None):
    dtype = TYPES[values.dtype]
    rest = (view,) if old else ()
    self.pid = ('storage', Name('torch', dtype), key, 'cpu', values.size, *rest)


class Name:
  """Pickles as `module.name` itself."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class Built:
  """Pickles as `value`, followed by an order to set its attributes."""

  def __init__(self, value, state):
    self.value, self.state = value, state


class Writer(pickle._Pickler):
  """Writes what `torch.save` writes."""

  def persistent_id(self, obj):
    return obj.pid if isinstance(obj, Storage) else None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, Name):
      self.write(f'c{obj.module}\n{obj.name}\n'.encode())
    elif isinstance(obj, Call):
      self.save(Name(obj.module, obj.name))
      self.save(obj.arguments)
      self.write(pickle.REDUCE)
    elif isinstance(obj, Built):
      self.save(obj.value)
      self.save(obj.state)
      self.write(pickle.BUILD)
    else:
      super().save(obj, save_persistent_id)


def pickled(value):
  file = io.BytesIO()
  Writer(file, protocol=2).dump(value)
  return file.getvalue()


def view(storage, offset, shape, strides):
  return Call(
    'torch._utils',
    '_rebuild_tensor_v2',
    *(storage, offset, shape, strides, False, OrderedDict()),
  )


def whole_view(key, values, old=False):
  strides = tuple(s // values.itemsize for s in values.strides)
  return view(Storage(key, values, old), 0, values.shape, strides)


def write_zip(
  path, value, storages, compression=zipfile.ZIP_STORED, content=None
):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', content or pickled(value))
    archive.writestr('archive/byteorder', 'little')
    for key, values in storages.items():
      archive.writestr(f'archive/data/{key}', values.tobytes())
  return path


def write_old(path, value, storages):
  """The format before PyTorch 1.6."""
  system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}
  magic = 0x1950A86A20F9469CFC6C
  with open(path, 'wb') as file:
    for part in (magic, 1001, system, value, list(storages)):
      file.write(pickled(part))
    for values in storages.values():
      file.write(struct.pack('<q', values.size) + values.tobytes())
  return path


def states(tensors, old=False):
  """Returns a state dict that can be pickled, and the storages of tensors."""
  storages = {str(i): tensors[name] for i, name in enumerate(tensors)}
  value = OrderedDict(
    (name, whole_view(str(i), tensors[name], old))
    for i, name in enumerate(tensors)
  )
  return value, storages


def assert_loads(path, model):
  variables = pretrained.load(path, NETWORK, EXAMPLE)
  assert jax.tree.structure(variables) == jax.tree.structure(model.variables)
  jax.tree.map(np.testing.assert_array_equal, variables, model.variables)


def test_weights_come_back_through_every_kind_of_file(tmp_path, model, tensors):
  safetensors.numpy.save_file(tensors, tmp_path / 'a.safetensors')
  assert_loads(tmp_path / 'a.safetensors', model)
  assert_loads(write_zip(tmp_path / 'a.pth', *states(tensors)), model)
  assert_loads(write_old(tmp_path / 'b.pth', *states(tensors, True)), model)


def test_weights_inside_a_checkpoint_are_found(tmp_path, model, tensors):
  count = np.array([7])
  value, storages = states({**tensors, 'bn1.num_batches_tracked': count})
  value = {f'module.{k}': v for k, v in value.items()}
  checkpoint = {'epoch': 240, 'model': value, 'best_acc': 0.7}
  assert_loads(write_zip(tmp_path / 'a.pth', checkpoint, storages), model)


def test_a_state_dict_may_have_metadata(tmp_path, model, tensors):
  value, storages = states(tensors)
  versions = OrderedDict({'': {'version': 1}, 'bn1': {'version': 2}})
  # `module.state_dict()` is saved as an OrderedDict with an attribute.
  ordered = Call('collections', 'OrderedDict', list(value.items()))
  built = Built(ordered, {'_metadata': versions})
  assert_loads(write_zip(tmp_path / 'a.pth', built, storages), model)


def test_a_tensor_may_be_a_strided_view(tmp_path):
  values = np.arange(12, dtype=np.float32)
  value = {'a': view(Storage('0', values), 1, (2, 3), (1, 4))}
  read = torch_files.read(write_zip(tmp_path / 'a.pth', value, {'0': values}))
  np.testing.assert_array_equal(read['a'], [[1, 5, 9], [2, 6, 10]])


@pytest.mark.parametrize(
  ('shape', 'strides', 'message'),
  [
    ((2, 7), (6, 1), 'beyond its storage'),
    ((13,), (1,), 'beyond its storage'),
    ((2,), (-1,), 'negative'),
    ((2, 2), (1,), 'negative'),
    ((2.0,), (1,), 'whole numbers'),
    # These would exhaust the memory.
    ((10**12,), (0,), 'more values than its storage'),
    ((10**6, 10**6), (0, 0), 'more values than its storage'),
  ],
)
def test_a_tensor_cannot_reach_beyond_its_storage(
  tmp_path, shape, strides, message
):
  values = np.arange(12, dtype=np.float32)
  value = {'a': view(Storage('0', values), 0, shape, strides)}
  with pytest.raises(UsageError, match=message):
    torch_files.read(write_zip(tmp_path / 'a.pth', value, {'0': values}))


@pytest.mark.parametrize('write', [write_zip, write_old])
def test_a_pickle_cannot_change_a_storage_or_a_function_of_the_reader(
  tmp_path, write
):
  values = np.arange(4, dtype=np.float32)
  storage = Storage('0', values, old=write is write_old)
  tensor = view(storage, 0, (4,), (1,))
  # A pickle can set attributes in two ways.
  for state in ({'dtype': 'O', 'size': 9}, (None, {'dtype': 'O'})):
    for changed in (storage, tensor):
      value = {'a': Built(changed, state)}
      with pytest.raises(UsageError, match=r'a\.pth: expected a PyTorch file'):
        torch_files.read(write(tmp_path / 'a.pth', value, {'0': values}))
  rebuild, other = (
    Name('torch._utils', f'_rebuild_{what}')
    for what in ('tensor_v2', 'parameter')
  )
  for state in ({'__defaults__': (1,)}, (other, (), {}, {'func': other})):
    value = {'a': Built(rebuild, state)}
    with pytest.raises(UsageError, match=r'partial|not a tensor'):
      torch_files.read(write(tmp_path / 'a.pth', value, {}))
    read = torch_files.read(
      write(tmp_path / 'b.pth', {'a': tensor}, {'0': values})
    )
    np.testing.assert_array_equal(read['a'], values)


def test_compressed_parts_and_views_of_storages_are_refused(tmp_path, tensors):
  path = tmp_path / 'a.pth'
  write_zip(path, *states(tensors), compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(UsageError, match=r"'archive/data\.pkl' is compressed"):
    torch_files.read(path)
  values = np.arange(4, dtype=np.float32)
  storage = Storage('0', values, old=True, view=('0', 1, 2))
  write_old(path, {'a': view(storage, 0, (2,), (1,))}, {'0': values})
  with pytest.raises(UsageError, match='view of another'):
    torch_files.read(path)


def test_text_of_a_file_cannot_control_the_terminal(tmp_path, tensors):
  evil = '\x1b[2J'
  for write in (write_zip, write_old):
    for value in ({'opt': Call(evil, 'x')}, {evil: 1}):
      with pytest.raises(UsageError) as error:
        torch_files.read(write(tmp_path / 'a.pth', value, {}))
      assert '\x1b' not in str(error.value)
      assert 'x1b[2J' in str(error.value)
  (tmp_path / 'b.pth').write_bytes(b'c' + evil.encode() + b'\nx\n.')
  with pytest.raises(UsageError) as error:
    torch_files.read(tmp_path / 'b.pth')
  assert '\x1b' not in str(error.value)


@pytest.mark.parametrize('write', [write_zip, write_old])
@pytest.mark.parametrize(
  ('module', 'name', 'arguments'),
  [
    ('os', 'system', ('touch {path}',)),
    ('builtins', 'eval', ("open('{path}', 'w')",)),
    ('builtins', 'getattr', (1, 'real')),
    ('argparse', 'Namespace', ()),
    ('antigravity', 'fly', ()),
    ('torch', 'load', ('x',)),
    ('numpy.core.multiarray', 'scalar', ()),
  ],
)
def test_nothing_beside_the_tensors_is_imported_or_called(
  tmp_path, write, module, name, arguments
):
  target = tmp_path / 'touched'
  arguments = [
    a.format(path=target) if isinstance(a, str) else a for a in arguments
  ]
  values = np.arange(4, dtype=np.float32)
  tensor = whole_view('0', values, write is write_old)
  before = set(sys.modules)
  for call in (
    Call(module, name, *arguments),
    Built(Call(module, name), {'lr': 0.1, 'opt': 'sgd'}),
    # As `argparse.Namespace` and other objects are pickled.
    Built(Call('copyreg', '__newobj__', Name(module, name)), {'lr': 0.1}),
  ):
    value = {'opt': call, 'model': {'a': tensor}, 'best_acc': tensor}
    path = write(tmp_path / 'a.pth', value, {'0': values})
    read = torch_files.read(path)
    assert list(read) == ['a']
    np.testing.assert_array_equal(read['a'], values)
  with pytest.raises(UsageError, match=f'an object of .{module}.{name}'):
    torch_files.read(write(tmp_path / 'a.pth', Call(module, name), {}))
  assert not target.exists()
  assert set(sys.modules) == before


def test_the_options_of_a_training_may_lie_beside_the_tensors(
  tmp_path, model, tensors
):
  value, storages = states(tensors)

  class Namespace:  # what RepDistiller's `opt` is
    def __init__(self):
      self.lr, self.trial = 0.05, ['a']

  Namespace.__module__ = 'argparse'
  Namespace.__qualname__ = 'Namespace'

  class Odd(Writer):
    def save_global(self, obj, name=None):
      self.write(f'c{obj.__module__}\n{obj.__qualname__}\n'.encode())

  file = io.BytesIO()
  Odd(file, protocol=2).dump({'opt': Namespace(), 'model': value})
  path = write_zip(tmp_path / 'a.pth', None, storages, content=file.getvalue())
  assert_loads(path, model)


def test_a_plain_pickle_is_refused(tmp_path):
  class Exploit:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / 'touched'),)

  (tmp_path / 'a.pth').write_bytes(pickle.dumps(Exploit()))
  with pytest.raises(UsageError, match='mkdir'):
    torch_files.read(tmp_path / 'a.pth')
  assert not (tmp_path / 'touched').exists()


@pytest.mark.parametrize(
  'place',
  [
    *('state_dict', 'state_dict_ema', 'model_state', 'net', 'network'),
    *('params', 'model_ema', 'student', 'teacher', 'my_weights'),
    'model.state_dict',
  ],
)
def test_the_only_dictionary_of_tensors_is_found_wherever_it_is(
  tmp_path, model, tensors, place
):
  value, storages = states(tensors)
  for key in reversed(place.split('.')):
    value = {key: value, 'epoch': 3}
  momentum = whole_view('0', tensors['conv1.weight'])
  state = {0: {'momentum_buffer': momentum}, 1: {'momentum_buffer': momentum}}
  value['optimizer'] = {'state': state, 'param_groups': [{'lr': 0.1}]}
  assert_loads(write_zip(tmp_path / 'a.pth', value, storages), model)


def test_of_several_dictionaries_of_tensors_the_usual_one_is_taken(tmp_path):
  arrays = {str(i): np.full(2, i, np.float32) for i in range(3)}
  views = {key: {'a': whole_view(key, array)} for key, array in arrays.items()}

  def read(*names):
    value = dict(zip(names, views.values()))
    return torch_files.read(write_zip(tmp_path / 'a.pth', value, arrays))['a']

  assert read('model_ema', 'model', 'discriminator')[0] == 1
  assert read('net', 'x', 'student')[0] == 0
  assert read('state_dict', 'model', 'net')[0] == 0
  with pytest.raises(UsageError, match=r"several .* \('x', 'y', 'z'\)"):
    read('x', 'y', 'z')


def test_a_dictionary_at_very_many_places_does_not_take_forever(tmp_path):
  value = {'epoch': 1}
  for _ in range(4):
    value = {str(i): value for i in range(2000)}
  path = write_zip(tmp_path / 'a.pth', value, {})
  with pytest.raises(UsageError, match='no dictionary of tensors'):
    torch_files.read(path)


@pytest.mark.parametrize('content', [b'', b'no pickle', b'PK\x03\x04'])
def test_a_damaged_file_is_a_usage_error(tmp_path, content):
  for name in ('a.pth', 'a.safetensors'):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
      pretrained.load(tmp_path / name, NETWORK, EXAMPLE)


def test_a_file_without_tensors_is_a_usage_error(tmp_path):
  with pytest.raises(UsageError, match='no dictionary of tensors'):
    torch_files.read(write_zip(tmp_path / 'a.pth', [1, 2], {}))
  with pytest.raises(UsageError, match="'epoch' is not a tensor"):
    torch_files.read(write_zip(tmp_path / 'a.pth', {'epoch': 1}, {}))
  with pytest.raises(UsageError, match='no such file'):
    pretrained.load(tmp_path / 'b.pth', NETWORK, EXAMPLE)
  with pytest.raises(UsageError, match='no such file'):
    pretrained.load(tmp_path / 'b.safetensors', NETWORK, EXAMPLE)


@pytest.mark.parametrize(
  'hash_it',
  [
    b'}(' + b'KEY' + b'K\x01u.',  # an item of a dictionary
    b'}' + b'KEY' + b'K\x01s.',
    b'(' + b'KEY' + b'K\x01d.',
    b'\x8f(' + b'KEY' + b'\x90.',  # an item of a set
    b'(' + b'KEY' + b'\x91.',
  ],
)
def test_a_deeply_nested_key_is_refused(tmp_path, hash_it):
  """Its hash would end the process."""
  nested = b')' + b'\x85' * 300_000
  content = b'\x80\x04' + hash_it.replace(b'KEY', nested)
  path = write_zip(tmp_path / 'a.pth', None, {}, content=content)
  with pytest.raises(UsageError, match='as a key'):
    torch_files.read(path)


def test_numbers_may_lie_among_the_tensors_of_the_only_dictionary(tmp_path):
  values = np.arange(4, dtype=np.float32)
  value = {'epoch': 5, 'a': whole_view('0', values), 'name': 'net'}
  read = torch_files.read(write_zip(tmp_path / 'a.pth', value, {'0': values}))
  assert list(read) == ['a']


def test_a_file_of_a_student_and_a_teacher_does_not_say_which_is_meant(
  tmp_path,
):
  values = np.arange(4, dtype=np.float32)
  roles = ('student', 'teacher', 'ema')
  value = {role: {'a': whole_view('0', values)} for role in roles}
  path = write_zip(tmp_path / 'a.pth', value, {'0': values})
  with pytest.raises(UsageError, match="'student', 'teacher', 'ema'"):
    torch_files.read(path)
