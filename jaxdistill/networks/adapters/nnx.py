"""Adopts a user's Flax NNX module, with or without its weights."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import inspect
from typing import Any, overload

from flax import nnx
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Model, Network, Stage, Variables
from jaxdistill.networks.adapters import functions, nnx_state

# The name under which a submodule's output is captured.
_OUTPUT = '__output__'


@overload
def from_nnx(
  module: nnx.Module,
  *,
  features: Mapping[str, str] | None = None,
  train: str | None = None,
) -> Model: ...


@overload
def from_nnx(
  module: Callable[..., nnx.Module],
  *,
  features: Mapping[str, str] | None = None,
  train: str | None = None,
) -> Network: ...


def from_nnx(
  module: nnx.Module | Callable[..., nnx.Module],
  *,
  features: Mapping[str, str] | None = None,
  train: str | None = None,
) -> Model | Network:
  """Adopts a Flax NNX module as a model or network of one stage, 'model'.

  A module keeps its weights and becomes a `Model`, for example a teacher that
  is already trained. A function (or class) that makes a module becomes a
  `Network`, for which `networks.init` and `jd.new_model` make new weights.

  The module is called with a batch of images `[B, H, W, C]` and returns the
  logits `[B, num_classes]`, or a dict that holds them as 'logits' and further
  features under their names. Before each call its `train()` or `eval()` is
  called. `nnx.Param` becomes the collection 'params', `nnx.BatchStat`
  'batch_stats', and any other variable a collection named after its type; all
  but 'params' are updated by the calls that train. The keys of random streams
  are not stored: each call derives them from the `rngs` of `networks.run`, by
  the stream's name or else from 'dropout'.

  Args:
    module: an `nnx.Module`, which is not changed, or a function that returns
      one, called as `module(rngs)`, or as `module(rngs=rngs)` if it has an
      argument of that name.
    features: feature -> the dotted path of a submodule ('blocks.3.norm') whose
      output becomes the feature, or of a value that the module sows as an
      `nnx.Intermediate`. If it is called several times, the last call counts.
    train: the name of an argument of the module that says whether it trains;
      '' if it has none. None: looks for 'train', 'training', 'is_training',
      'deterministic', 'use_running_average' and 'inference'; the last three are
      understood as the opposite.

  Returns:
    The model or the network. It runs as a whole; see `from_functions`. Running
    it raises a UsageError if a path of `features` names no submodule that is
    called, or if it draws random numbers and `rngs` has no key for it. With
    no keys at all its dropout is omitted.

  Raises:
    UsageError: `module` is not an NNX module, or makes none.

  Example:
    teacher = jd.networks.from_nnx(my_module, features={'deep': 'blocks.3'})
    student = jd.networks.from_nnx(lambda rngs: MyModule(width=8, rngs=rngs))
    models = {'teacher': teacher, 'student': jd.new_model(student, recipe)}
  """
  if isinstance(module, nnx.Module):
    copy = nnx.clone(module)
    nnx.pop(copy, nnx.Intermediate)  # what earlier calls left
    adapter, values = _adapter(nnx.split(copy), type(module))
    adapter = adapter.with_options(features, train)
    network = Network((Stage('model', adapter),))
    variables = nnx_state.nest(adapter.leaves, [jnp.asarray(x) for x in values])
    return Model(
      network, {name: {'model': tree} for name, tree in variables.items()}
    )
  if not callable(module):
    raise UsageError(
      'from_nnx: expected an nnx.Module or a function that makes one, got '
      f'{module!r}'
    )
  adapter = _abstract(module).with_options(features, train)
  return Network((Stage('model', adapter),))


def to_nnx(model: Model) -> nnx.Module:
  """Returns a new NNX module with the weights of a model made by `from_nnx`.

  Its random streams start from the key 0; `nnx.reseed` sets others.

  Args:
    model: a model whose network `from_nnx` made, such as a trained student.

  Raises:
    UsageError: the network was not made by `from_nnx`.
  """
  stages = model.network.stages
  adapter = stages[0].module if len(stages) == 1 else None
  if not isinstance(adapter, _NnxModule):
    raise UsageError('to_nnx: expected a model whose network from_nnx made')
  name = stages[0].name
  return adapter.module(
    {c: tree[name] for c, tree in model.variables.items() if name in tree}, {}
  )


# Compared by identity: definitions of modules need not be hashable.
@dataclasses.dataclass(frozen=True, eq=False)
class _NnxModule:
  """An NNX module behind the interface of a stage's module.

  Attributes:
    definition: the static part of the module.
    structure: the tree of the module's state.
    leaves: the arrays of the state, in the order of `structure`.
    kind: the class of the module.
    make: makes a new module from random keys; None if the weights are given.
    features: see `from_nnx`.
    train: the name of the argument that says whether the module trains, or ''.
  """

  definition: Any
  structure: Any
  leaves: tuple[nnx_state.Leaf, ...]
  kind: type
  make: Callable[[Array], nnx.Module] | None = None
  features: tuple[tuple[str, str], ...] = ()
  train: str = ''

  def with_options(
    self, features: Mapping[str, str] | None, train: str | None
  ) -> '_NnxModule':
    """Returns a copy with the user's options; see `from_nnx`."""
    if train is None:
      parameters = inspect.signature(self.kind.__call__).parameters
      train = next(filter(functions.is_train_argument, parameters), '')
    pairs = tuple((features or {}).items())
    return dataclasses.replace(self, features=pairs, train=train)

  def init(self, rng: Array, *inputs: Array, train: bool) -> Variables:
    """Returns new variables; see `core.types.StageModule`.

    Raises:
      UsageError: the network was made of a module with its weights.
    """
    del inputs, train
    if self.make is None:
      raise UsageError(
        'from_nnx: a network made from an nnx.Module keeps the weights of that '
        'module; for new weights, pass a function that makes the module'
      )
    state = nnx.split(self.make(rng))[1]
    return nnx_state.nest(self.leaves, jax.tree.leaves(state))

  def variable_shapes(self) -> Variables:
    """Returns the shapes of the variables, also where `init` cannot be used."""
    return nnx_state.nest(self.leaves, [leaf.shape for leaf in self.leaves])

  def apply(
    self,
    variables: Variables,
    *inputs: Array,
    train: bool,
    mutable: Any = None,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """Returns outputs, with updates if `mutable` is given."""
    keys = dict(rngs or {})
    module = self.module(variables, keys)
    set_mode: Callable[[], None] = module.train if train else module.eval
    set_mode()
    if not keys:
      module.set_attributes(deterministic=True, raise_if_not_found=False)
    for path, submodule in nnx.iter_modules(module):
      if path and '.'.join(map(str, path)) in dict(self.features).values():
        # The class, because Python looks up `__call__` there.
        object.__setattr__(submodule, '__class__', _capturing(type(submodule)))
    counts = _stream_counts(module)
    call = nnx.capture(_call, nnx.Intermediate)
    outputs, captured = call(
      module, inputs, functions.train_argument(self.train, train)
    )
    for (stream, before), (_, after) in zip(counts, _stream_counts(module)):
      if after is not before and not {stream, 'dropout'} & set(keys):
        raise UsageError(
          'from_nnx: the module draws random numbers; expected a key for its '
          f"stream {stream!r}, or rngs={{'dropout': key}}"
        )
    outputs = self._named(module, outputs, captured)
    if mutable is None:
      return outputs
    return outputs, self._updates(module, mutable)

  def module(
    self, variables: Variables, rngs: Mapping[str, Array]
  ) -> nnx.Module:
    """Returns a new module that holds the variables.

    Raises:
      UsageError: a variable is missing.
    """
    values = [
      nnx_state.value(i, leaf, variables, rngs)
      for i, leaf in enumerate(self.leaves)
    ]
    state = jax.tree.unflatten(self.structure, values)
    module: nnx.Module = nnx.merge(self.definition, state)
    return module

  def _named(self, module: nnx.Module, outputs: Any, captured: Any) -> Any:
    """Returns the outputs together with the features."""
    if not self.features:
      return functions.stage_outputs(outputs)
    intermediates = _by_path(nnx.to_pure_dict(captured))
    features = dict(self.features)
    for feature, path in features.items():
      if path in intermediates:
        continue
      paths = ['.'.join(map(str, p)) for p, _ in nnx.iter_modules(module) if p]
      if path in paths:
        raise UsageError(
          f'features.{feature}: the submodule {path!r} was not called'
        )
      raise checks.unknown('submodule', path, sorted({*paths, *intermediates}))
    return functions.stage_outputs(
      functions.with_features(outputs, features, intermediates)
    )

  def _updates(self, module: nnx.Module, mutable: Any) -> Variables:
    """Returns the new values of the mutable collections."""
    values = {
      leaf.path: value
      for leaf, value in nnx_state.leaves_of(nnx.split(module)[1])
    }
    updates = nnx_state.nest(
      self.leaves, [values[leaf.path] for leaf in self.leaves]
    )
    return {name: tree for name, tree in updates.items() if name in mutable}


def _adapter(
  split: tuple[Any, Any], kind: type
) -> tuple[_NnxModule, list[Any]]:
  """Returns the adapter of a split module, and the values of its leaves."""
  definition, state = split
  pairs = list(nnx_state.leaves_of(state))
  leaves = tuple(leaf for leaf, _ in pairs)
  structure = jax.tree.structure(state)
  return _NnxModule(definition, structure, leaves, kind), [v for _, v in pairs]


def _abstract(function: Callable[..., nnx.Module]) -> _NnxModule:
  """Returns the adapter of the module that a function makes.

  Raises:
    UsageError: the function makes something else, or a module that holds
      arrays outside of variables.
  """
  definitions: list[tuple[Any, type]] = []

  def make(rng: Array) -> nnx.Module:
    rngs = nnx.Rngs(rng)
    called: Any = function
    if isinstance(function, type):  # its own signature is that of a metaclass
      called = inspect.getattr_static(function, '__init__')
    by_name = 'rngs' in inspect.signature(called).parameters
    module = function(rngs=rngs) if by_name else function(rngs)
    if not isinstance(module, nnx.Module):
      raise UsageError(
        'from_nnx: expected a function that returns an nnx.Module, got '
        f'{type(module).__name__} from it'
      )
    return module

  def state_of(rng: Array) -> Any:
    module = make(rng)
    definition, state = nnx.split(module)
    definitions.append((definition, type(module)))
    return state

  state = jax.eval_shape(state_of, jax.random.key(0))
  definition, kind = definitions[-1]
  for path, value in getattr(definition, 'attributes', ()):
    if isinstance(getattr(value, 'value', None), jax.core.Tracer):
      raise UsageError(
        f'from_nnx: the attribute {path!r} of {kind.__name__} is an array; '
        'expected it in an nnx.Variable, such as nnx.Variable(array)'
      )
  adapter, _ = _adapter((definition, state), kind)
  return dataclasses.replace(adapter, make=make)


def _call(
  module: Any, inputs: tuple[Array, ...], arguments: dict[str, bool]
) -> Any:
  return module(*inputs, **arguments)


@functools.cache
def _capturing(kind: Any) -> type:
  """Returns a subclass of a module's class that captures its own output."""

  def __call__(self: Any, *arguments: Any, **named: Any) -> Any:
    output = kind.__call__(self, *arguments, **named)
    self.sow(nnx.Intermediate, _OUTPUT, output)
    return output

  return type(kind.__name__, (kind,), {'__call__': __call__})


def _stream_counts(module: nnx.Module) -> list[tuple[str, Any]]:
  """Returns the name and the counter of each random stream of a module."""
  entries = jax.tree.leaves(
    nnx.state(module, nnx.RngCount),
    is_leaf=lambda x: isinstance(x, nnx.RngCount),
  )
  return [(entry.tag, entry.get_value()) for entry in entries]


def _by_path(tree: Mapping[Any, Any], prefix: str = '') -> dict[str, Any]:
  """Returns dotted path -> captured value, of several values the last one."""
  values: dict[str, Any] = {}
  for key, value in tree.items():
    path = prefix if key == _OUTPUT else f'{prefix}.{key}'.lstrip('.')
    if isinstance(value, Mapping):
      values |= _by_path(value, path)
    else:
      values[path] = value[-1] if isinstance(value, tuple) else value
  return values
