"""Networks described as JSON, and models saved to files."""

import importlib
import inspect
import json
import pkgutil
import sys

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from jaxdistill import methods, networks, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import adapters, description, graph, layers
from jaxdistill.networks.models import resnet, vgg
from jaxdistill.networks.weights import files
from jaxdistill.objectives import adapters as objective_adapters

BUILT = {
  'resnet': resnet.cifar_resnet(14, stem_width=2, widths=(2, 2, 4)),
  'pruned': resnet.cifar_resnet(
    8, stem_width=2, widths=(2, 2, 4), inner_widths=(1, 2, 3)
  ),
  'shortcut': resnet.cifar_resnet(8, shortcut='A', dtype='bfloat16'),
  'wrn': resnet.wide_resnet(16, 2, dropout=0.3),
  'vgg': vgg.cifar_vgg(8, widths=(1, 2, 3, 4, 5), use_bias=False),
}


@networks.register
class Elsewhere(nn.Module):
  """A user's module that files may name."""

  widths: tuple[int | tuple[int, ...], ...] = (1, 2)

  @nn.compact
  def __call__(self, x, train):
    return x


def assert_same(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', BUILT)
def test_a_network_is_rebuilt_from_its_description_as_text(name):
  network = BUILT[name]
  text = json.dumps(description.to_description(network))
  assert description.from_description(json.loads(text)) == network


def test_a_description_keeps_inputs_and_classes_of_other_packages():
  network = Network(
    (
      Stage('a', layers.Pool()),
      Stage('b', Elsewhere((3, (4, 5))), ('a', 'image')),
    )
  )
  text = json.dumps(description.to_description(network))
  assert description.from_description(json.loads(text)) == network


def test_no_two_modules_of_the_library_share_a_name():
  names: dict[str, str] = {}
  for package in (networks, objectives, methods):
    prefix = f'{package.__name__}.'
    for entry in pkgutil.walk_packages(package.__path__, prefix):
      module = importlib.import_module(entry.name)
      for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, nn.Module):
          home = value.__module__
          assert names.setdefault(name, home) == home, name
  # Convolutions and norms are used inside of stages only, and _Memory holds the
  # data.
  inner = {'Conv', 'SameConv', 'ScaleShift', '_Memory'}
  assert set(names) - inner <= set(description.MODULES)


def test_a_saved_model_reopens_bit_for_bit(student, tmp_path):
  files.save(tmp_path / 'model.safetensors', student)
  read = files.load(tmp_path / 'model.safetensors')
  assert read.network == student.network
  assert_same(read.variables, student.variables)


def test_arrays_of_every_dtype_reopen_bit_for_bit(tmp_path):
  tree = {
    'params': {'a': {'w': jnp.asarray([0.1, -3e38], jnp.bfloat16)}},
    'other': {
      'a': {
        'f16': jnp.asarray([1 / 3], jnp.float16),
        'f32': jnp.asarray([[np.nextafter(1, 2, dtype=np.float32)]]),
        'count': jnp.asarray(7, jnp.int32),
        'mask': np.array([True, False]),
        'host': np.arange(3, dtype=np.uint8),
      }
    },
  }
  files.save_tree(tmp_path / 'x.safetensors', tree, {'about': {'n': [1, 2]}})
  read, metadata = files.load_tree(tmp_path / 'x.safetensors')
  assert_same(read, tree)
  assert metadata == {'about': {'n': [1, 2]}}


def test_a_spliced_network_reopens_and_computes_the_same(student, tmp_path):
  block = 'group1.block1'
  unit = Network((Stage('head', resnet.BasicBlock(2, inner=1)),))
  image = {'image': jnp.ones((2, 8, 8, 2))}
  part = Model(unit, graph.init(unit, jax.random.key(1), image))
  altered = graph.splice(student, block, block, part)
  files.save(tmp_path / 'x.safetensors', altered)
  read = files.load(tmp_path / 'x.safetensors')
  assert read.network == altered.network
  image = jnp.ones((2, 8, 8, 1))
  np.testing.assert_array_equal(
    graph.apply(*read, image), graph.apply(*altered, image)
  )


def test_a_model_of_functions_reopens_only_with_its_network(tmp_path):
  def init(rng, image):
    return {'params': {'w': jnp.ones((3, 3))}}

  def apply(variables, image, train, rngs):
    return image.mean((1, 2)) @ variables['params']['w'], {}

  network = adapters.from_functions(init, apply)
  image = {'image': jnp.ones((2, 8, 8, 3))}
  model = Model(network, graph.init(network, jax.random.key(0), image))
  path = tmp_path / 'x.safetensors'
  files.save(path, model)
  assert_same(files.load(path, network).variables, model.variables)
  with pytest.raises(UsageError, match='holds no description of its network'):
    files.load(path)
  with pytest.raises(UsageError, match=r"'model': expected a Linen module"):
    description.to_description(network)


def test_a_module_with_fields_that_json_cannot_hold_is_refused():
  network = Network((Stage('a', nn.Conv(2, (3, 3), dtype=jnp.bfloat16)),))
  with pytest.raises(
    UsageError, match=r"'a': expected fields of Conv that JSON"
  ):
    description.to_description(network)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UsageError, match=r'nowhere\.safetensors: no such file'):
    files.load(tmp_path / 'nowhere.safetensors')


@pytest.mark.parametrize('content', [b'', b'garbage' * 9, b'\xff' * 64])
def test_a_file_of_other_content_is_refused(content, tmp_path):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(content)
  with pytest.raises(UsageError, match='expected a safetensors file'):
    files.load(path)


def test_a_truncated_file_is_refused(student, tmp_path):
  path = tmp_path / 'x.safetensors'
  files.save(path, student)
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(UsageError, match='expected a safetensors file'):
    files.load(path)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path):
  with pytest.raises(UsageError, match=str(tmp_path)):
    files.load(tmp_path)


def test_a_file_of_another_program_is_refused(tmp_path):
  path = tmp_path / 'x.safetensors'
  arrays = {'w': jnp.ones(2)}
  safetensors.flax.save_file(arrays, path, metadata={'format': 'pt'})
  with pytest.raises(UsageError, match=r'x\.safetensors'):
    files.load(path)


@pytest.mark.parametrize(
  'name',
  [
    'antigravity:Easter',
    'jaxdistill.networks.antigravity:Easter',
    'os:system',
    'flax.linen:nothing',
    # Modules, and imported, but not the library's own.
    'flax.linen:Dense',
    'flax.linen:Conv',
    'flax.linen.linear:Embed',
    'Module',
    'Conv',
    'Nothing',
    'jax',
    3,
    None,
  ],
)
def test_a_description_imports_nothing_and_calls_no_function(
  name, student, tmp_path
):
  stages = description.to_description(student.network)
  stages[0]['class'] = name
  path = tmp_path / 'x.safetensors'
  files.save_tree(path, student.variables, {'network': stages})
  before = set(sys.modules)
  with pytest.raises(UsageError, match='unknown class'):
    files.load(path)
  assert set(sys.modules) == before


@pytest.mark.parametrize(
  'fields',
  [
    {'colour': 'red'},
    {'parent': None},
    {'name': 'x'},
    {'width': '4'},
    {'width': True},
    {'width': 4.0},
    {'width': [4]},
    {'width': None},
    {'norm': 1},
    {'activation': 3},
    {'epsilon': float('inf')},
    {'epsilon': {'name': 'x'}},
    {'setup': 'x'},
  ],
)
def test_a_field_of_a_description_is_checked(fields):
  network = Network((Stage('a', layers.ConvUnit(4)),))
  (stage,) = json.loads(json.dumps(description.to_description(network)))
  stage['fields'] |= fields
  (field,) = fields
  with pytest.raises(UsageError, match=f"'a': ConvUnit.*'{field}'") as error:
    description.from_description([stage])
  assert '\n' not in str(error.value)


def test_sequences_in_a_description_have_their_types_and_lengths():
  def described(shape):
    module = objective_adapters.Adapter((1, 2, 3))
    network = Network((Stage('a', module),))
    (stage,) = json.loads(json.dumps(description.to_description(network)))
    return [{**stage, 'fields': {'shape': shape}}]

  (stage,) = description.from_description(described([4, 5, 6])).stages
  assert stage.module.shape == (4, 5, 6)
  for shape in ([4, 5], [4, 5, '6'], 'abc', 456, [4, 5, 6.5], {'0': 1}):
    with pytest.raises(UsageError, match=r'not valid as .shape'):
      description.from_description(described(shape))


@pytest.mark.parametrize(
  'content',
  [
    *('text', 3, None, {}, ['text'], [None], [{}], [{'name': 'a'}]),
    [{'name': 'a', 'inputs': 3, 'class': 'Pool', 'fields': {}}],
    [{'name': 3, 'inputs': [], 'class': 'Pool', 'fields': {}}],
    [{'name': 'a', 'inputs': [3], 'class': 'Pool', 'fields': {}}],
    [{'name': 'a', 'inputs': 'stem', 'class': 'Pool', 'fields': {}}],
    [
      {
        'name': 'a',
        'inputs': [],
        'class': 'Pool',
        'fields': {},
        'optional': 'boxes',
      }
    ],
    [{'name': 'a', 'inputs': [], 'class': 'Pool', 'fields': [1]}],
    [{'name': 'a', 'inputs': [], 'class': 'Pool', 'fields': {}, 'image': 3}],
    [
      {
        'name': 'a',
        'inputs': [],
        'class': 'Pool',
        'fields': {},
        'image': {'scale': ['x'], 'offset': [1]},
      }
    ],
  ],
)
def test_a_description_of_another_form_is_refused_in_one_line(content):
  with pytest.raises(UsageError, match='network: ') as error:
    description.from_description(content)
  assert '\n' not in str(error.value)


def test_a_class_of_the_user_is_built_only_if_the_user_names_it():
  class Mine(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      return x

  network = Network((Stage('a', Mine()),))
  described = description.to_description(network)
  with pytest.raises(UsageError, match=r'Mine.*jd\.networks\.register'):
    description.from_description(described)
  assert description.from_description(described, [Mine]) == network
  with pytest.raises(UsageError, match='expected a class of Linen modules'):
    networks.register(print)


def test_a_save_leaves_nothing_but_the_file(student, tmp_path):
  files.save(tmp_path / 'x.safetensors', student)
  assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']


def test_statistics_are_not_counted_as_parameters():
  tree = {
    'params': {'a': {'w': np.ones((3, 4)), 'b': np.ones(())}},
    'batch_stats': {'a': {'mean': np.ones(100)}},
  }
  assert graph.count_parameters(tree) == 13
  tree['params']['a']['w'][1] = 0
  assert graph.count_nonzero(tree) == 9


def test_a_file_of_another_network_is_refused(tmp_path, student):
  files.save(tmp_path / 'a.safetensors', student)
  stages = student.network.stages
  other = Network((stages[0]._replace(name='entry'), *stages[1:]))
  with pytest.raises(UsageError, match="got those of a stage 'stem'"):
    files.load(tmp_path / 'a.safetensors', other)


@pytest.mark.parametrize(
  ('name', 'arguments', 'array'),
  [
    ('resnet8', {'widths': (4, 8, 20)}, 'params/group3.block1/'),
    ('resnet8', {'num_classes': 5}, 'params/head/'),
    ('resnet14', {}, 'params/group1.block2/'),
    ('vit', {'patch': 8}, 'params/stem/'),
    ('vit', {'width': 16}, 'params/stem/'),
  ],
)
def test_the_first_array_of_another_shape_is_named(
  tmp_path, name, arguments, array
):
  def network(name, **arguments):
    small = {'widths': (4, 8, 16), 'stem_width': 4}
    if name == 'vit':
      small = {'width': 8, 'depth': 1, 'heads': 2, 'patch': 4}
    return networks.create(name, **{'num_classes': 3, **small, **arguments})

  written = network('vit' if name == 'vit' else 'resnet8')
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 1), np.float32)}
  shapes = networks.variable_shapes(written, image)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  path = tmp_path / 'model.safetensors'
  files.save(path, Model(written, zeros))
  assert_same(files.load(path, written).variables, zeros)
  with pytest.raises(UsageError) as caught:
    files.load(path, network(name, **arguments))
  message = str(caught.value)
  assert message.startswith(f'{path}: {array}')
  assert '\n' not in message
