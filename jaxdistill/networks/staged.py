"""Running, cutting and splicing networks that are tuples of named stages."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import dataclasses
import difflib
import functools
from typing import Any

import flax.core
import jax
import jax.numpy as jnp

from jaxdistill.types import (
  Array,
  Cut,
  Features,
  Model,
  Network,
  Stage,
  UsageError,
  Variables,
)


def init(
  network: Network, rng: Array, features: Mapping[str, Any]
) -> Variables:
  """Initial variables of every stage.

  Args:
    network: the network.
    rng: a key; each stage gets its own.
    features: what the network reads, {'image': `[B, H, W, C]`}; arrays or
      `jax.ShapeDtypeStruct`.

  Returns:
    {collection: {stage: ...}}.
  """
  signature = _signature(features)
  if isinstance(rng, jax.core.Tracer):
    return _initialize(network, signature, rng)
  try:
    return _compiled_initialize(network, signature, rng)
  except ValueError:  # its options are refused while something else is traced
    return _initialize(network, signature, rng)


def run(
  network: Network,
  variables: Variables,
  features: Mapping[str, Array],
  *,
  only: Iterable[str] | None = None,
  train: bool | Collection[str] = False,
  rngs: Mapping[str, Array] | None = None,
) -> tuple[Features, Variables]:
  """Runs stages in order: the one forward function.

  Args:
    network: the network.
    variables: its variables; those of stages that do not run may be missing.
    features: what is known, {'image': `[B, H, W, C]`} for a full pass, or any
      earlier feature to start from.
    only: names of the stages to run; default: all.
    train: whether the stages train, or the names of those that do: batch
      statistics of the batch are used, and the new running ones returned.
    rngs: name -> key for stochastic stages; each stage gets its own.

  Returns:
    (features given and computed, {collection: {stage: ...}} of the collections
    other than 'params' that stages run with `train` have changed).
  """
  features = with_groups(network, dict(features))
  updates: Variables = {}
  chosen = None if only is None else set(only)
  if chosen is not None:
    check_stages(network, chosen)
  for i, stage in enumerate(network.stages):
    if chosen is not None and stage.name not in chosen:
      continue
    own = {
      c: tree[stage.name] for c, tree in variables.items() if stage.name in tree
    }
    keys = {k: jax.random.fold_in(v, i) for k, v in (rngs or {}).items()}
    trains = train if isinstance(train, bool) else stage.name in train
    mutable = [c for c in own if c != 'params'] if trains else []
    outputs, changed = stage.module.apply(
      own,
      *_inputs(network, i, features),
      train=trains,
      mutable=mutable,
      rngs=keys,
    )
    features |= _named(network, i, outputs)
    for collection, tree in changed.items():
      updates.setdefault(collection, {})[stage.name] = tree
  return features, updates


def apply(network: Network, variables: Variables, image: Array) -> Array:
  """The network's answer in inference mode, `[B, num_classes]` for logits.

  The image is `[B, H, W, C]` as in training: standardised, not the raw uint8
  (`data.augment.standardize` with the mean and std of the data set).

  Raises:
    UsageError: the image is raw.
  """
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise UsageError(
      f'the image is {image.dtype}; wanted: standardised floats, as in training'
    )
  features, _ = run(network, variables, {'image': image})
  return features[output(network)]


def output(network: Network) -> str:
  """Name of the feature that is the network's answer."""
  return network.stages[-1].name


def stage_names(network: Network) -> tuple[str, ...]:
  return tuple(stage.name for stage in network.stages)


def groups(network: Network) -> dict[str, tuple[str, ...]]:
  """Group -> its stages, in order; a stage without a dot is its own group."""
  members: dict[str, tuple[str, ...]] = {}
  for name in stage_names(network):
    group = name.partition('.')[0]
    members[group] = (*members.get(group, ()), name)
  return members


def check_stages(network: Network, names: Iterable[str]) -> None:
  """Raises UsageError at the first name that is no stage of the network."""
  valid = stage_names(network)
  for name in names:
    if name not in valid:
      raise unknown('stage', name, valid)


def unknown(kind: str, name: Any, valid: Iterable[str]) -> UsageError:
  """The error for a name that is not there, with the nearest that is."""
  valid = list(valid)
  near = difflib.get_close_matches(str(name), valid, n=1)
  hint = f' (nearest: {near[0]!r})' if near else ''
  return UsageError(f'unknown {kind} {name!r}{hint}; valid: {", ".join(valid)}')


def stages_between(network: Network, start: str, stop: str) -> tuple[str, ...]:
  """Stages that compute feature `stop` from feature `start`.

  Args:
    network: the network.
    start: 'image', or the output of a stage or group.
    stop: the output of a later stage or group; it is included.

  Raises:
    UsageError: a name is no output of a stage, such as a tap inside a stage
      (the stages of an opaque network run whole or not at all).
  """
  names = stage_names(network)
  first = 0 if start == 'image' else names.index(_writer(network, start)) + 1
  last = names.index(_writer(network, stop))
  if last < first:
    raise UsageError(f'feature {stop!r} is not computed after {start!r}')
  return names[first : last + 1]


def shapes(
  network: Network, features: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shape of every feature of a full pass, without computing any."""
  return dict(_shapes(network, _signature(features))[1])


def variable_shapes(network: Network, features: Mapping[str, Any]) -> Variables:
  """Shapes of what `init` returns, without computing it."""
  return _shapes(network, _signature(features))[0]


def check_cut(
  student: Network, teacher: Network, cut: Cut, example: Mapping[str, Any]
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
  """Shapes `[B, ...]` of each pair (student feature, teacher feature) of a cut.

  Raises:
    UsageError: a feature does not exist, with the names that do.
  """
  ours, theirs = shapes(student, example), shapes(teacher, example)
  for student_feature, teacher_feature in cut:
    if student_feature not in ours:
      raise unknown('student feature', student_feature, ours)
    if teacher_feature not in theirs:
      raise unknown('teacher feature', teacher_feature, theirs)
  return tuple((ours[s].shape, theirs[t].shape) for s, t in cut)


def select(variables: Variables, names: Iterable[str]) -> Variables:
  """The variables of some stages."""
  names = set(names)
  return {
    collection: {k: v for k, v in tree.items() if k in names}
    for collection, tree in variables.items()
  }


def merge(variables: Variables, updates: Variables) -> Variables:
  """`variables` with the stages that `updates` holds replaced."""
  merged = dict(variables)
  for collection, tree in updates.items():
    merged[collection] = {**variables.get(collection, {}), **tree}
  return merged


def splice(model: Model, start: str, stop: str, part: Model) -> Model:
  """Replaces a range of stages by others, with the variables to match.

  Args:
    model: the network to change and its variables.
    start: first stage to replace.
    stop: last stage to replace, at or after `start`.
    part: the stages to put there, any number of them, also none. A stage of
      `part` whose name the rest of the model uses gets a number appended.

  Returns:
    The spliced model.

  Raises:
    UsageError: a name is no stage, or a later stage reads a replaced one by
      name.
  """
  names = stage_names(model.network)
  check_stages(model.network, (start, stop))
  first, last = names.index(start), names.index(stop)
  if last < first:
    raise UsageError(f'stage {stop!r} stands before {start!r}')
  removed = names[first : last + 1]
  kept = set(names) - set(removed)
  renamed: dict[str, str] = {}
  for name in stage_names(part.network):
    renamed[name] = _free_name(name, kept | set(renamed.values()))
  stages = tuple(
    Stage(renamed[s.name], s.module, tuple(renamed.get(i, i) for i in s.inputs))
    for s in part.network.stages
  )
  before, after = model.network.stages[:first], model.network.stages[last + 1 :]
  network = Network(before + stages + after)
  # Inputs may name a stage, its group, or a tap of either.
  ends = {*names, *groups(model.network)}
  gone = ends - {*stage_names(network), *groups(network)}
  for stage in after:
    lost = [
      i for i in stage.inputs if any(f'{i}.'.startswith(f'{g}.') for g in gone)
    ]
    if lost:
      raise UsageError(f'stage {stage.name!r} reads replaced {sorted(lost)}')
  moved = {
    collection: {renamed[k]: v for k, v in tree.items()}
    for collection, tree in part.variables.items()
  }
  return Model(network, merge(select(model.variables, kept), moved))


def opaque(
  init: Callable[..., Variables], apply: Callable[..., Any]
) -> Network:
  """A model of one's own as a network of one stage, 'model'.

  Args:
    init: (rng, image) -> {'params': ..., other collections}.
    apply: (variables, image, train, rngs) -> (outputs, updates): outputs are
      the logits `[B, num_classes]`, or a dict of them as 'logits' with named
      features beside; updates are the collections other than 'params' that
      changed, {} if none.

  Returns:
    A network whose answer is the feature 'model' and whose features are the
    named outputs; a method that must run a part of it refuses it.
  """
  return Network((Stage('model', _Functions(init, apply)),))


def from_linen(module: Any, train: str = 'train') -> Network:
  """A Flax Linen module of one's own as an opaque network.

  Args:
    module: called with (image, train=...); returns logits or a dict, see
      `opaque`.
    train: the name of the module's argument that says it trains.
  """

  def initialize(rng, image):
    return module.init(rng, image, **{train: False})

  def run_module(variables, image, is_train, rngs):
    mutable = [c for c in variables if c != 'params'] if is_train else []
    return module.apply(
      variables, image, **{train: is_train}, mutable=mutable, rngs=rngs
    )

  return opaque(initialize, run_module)


@dataclasses.dataclass(frozen=True)
class _Functions:
  """Two functions behind the interface of a Linen module."""

  initialize: Callable[..., Variables]
  function: Callable[..., Any]

  def init(self, rng, *inputs, train):
    del train
    return self.initialize(rng, *inputs)

  def apply(self, variables, *inputs, train, mutable=None, rngs=None):
    outputs, updates = self.function(variables, *inputs, train, rngs)
    if isinstance(outputs, Mapping):
      outputs = {'' if k == 'logits' else k: v for k, v in outputs.items()}
    if mutable is None:
      return outputs
    return outputs, {k: v for k, v in updates.items() if k in mutable}


def with_groups(network: Network, features: Features) -> Features:
  """Adds the last stage's name to a group's feature, and the reverse."""
  for group, members in groups(network).items():
    if group in features:
      features.setdefault(members[-1], features[group])
    elif members[-1] in features:
      features[group] = features[members[-1]]
  return features


def _signature(features: Mapping[str, Any]) -> tuple:
  """((name, shape, dtype), ...), to compare and hash."""
  return tuple(
    (name, tuple(x.shape), jnp.dtype(x.dtype)) for name, x in features.items()
  )


@functools.lru_cache(maxsize=256)
def _shapes(
  network: Network, signature: tuple
) -> tuple[Variables, dict[str, jax.ShapeDtypeStruct]]:
  """Shapes of the variables and, in order, of all features of a full pass."""
  order: list[str] = []

  def full_pass(rng, features):
    variables = init(network, rng, features)
    outputs, _ = run(network, variables, features)
    order.extend(outputs)
    return variables, outputs

  features = {n: jax.ShapeDtypeStruct(s, d) for n, s, d in signature}
  variables, found = jax.eval_shape(full_pass, jax.random.key(0), features)
  return variables, {name: found[name] for name in order}


def _initialize(network: Network, signature: tuple, rng: Array) -> Variables:
  """Initial variables for features of a signature."""
  variables: Variables = {}
  features = {name: jnp.zeros(shape, dtype) for name, shape, dtype in signature}
  features = with_groups(network, features)
  for i, stage in enumerate(network.stages):
    inputs = _inputs(network, i, features)
    own = stage.module.init(jax.random.fold_in(rng, i), *inputs, train=False)
    own = flax.core.unfreeze(own)
    for collection, tree in own.items():
      variables.setdefault(collection, {})[stage.name] = tree
    keys = {'params': rng, 'dropout': rng}
    outputs = stage.module.apply(own, *inputs, train=False, rngs=keys)
    features |= _named(network, i, outputs)
  return variables


# Compiled once per network: only the variables are computed, the forward pass
# is dropped. Many small generators compile 4 times faster unoptimised.
_compiled_initialize = jax.jit(
  _initialize,
  static_argnums=(0, 1),
  compiler_options={'xla_backend_optimization_level': 0},
)


def _inputs(network: Network, i: int, features: Features) -> Sequence[Array]:
  stage = network.stages[i]
  before = network.stages[i - 1].name if i else 'image'
  names = stage.inputs or (before,)
  missing = [name for name in names if name not in features]
  if missing:
    raise UsageError(
      f'stage {stage.name!r} reads {missing[0]!r}, which is not among the '
      f'features given or computed: {", ".join(features)}'
    )
  return [features[name] for name in names]


def _named(network: Network, i: int, outputs: Any) -> Features:
  """Outputs of a stage under their full names, and those of its group."""
  name = network.stages[i].name
  if not isinstance(outputs, Mapping):
    outputs = {'': outputs}
  group = name.partition('.')[0]
  ends_group = groups(network)[group][-1] == name
  features: Features = {}
  for key, value in outputs.items():
    if key == '' or key.startswith('.'):
      features[name + key] = value
      if ends_group:
        features[group + key] = value
    else:
      features[key] = value
  return features


def _writer(network: Network, feature: str) -> str:
  """The stage whose own output is `feature`."""
  members = groups(network)
  names = stage_names(network)
  if feature in names:
    return feature
  if feature in members:
    return members[feature][-1]
  ends = dict.fromkeys((*names, *members))
  error = unknown('boundary between stages', feature, ends)
  raise UsageError(f'{error} (a stage runs whole)')


def _free_name(name: str, taken: set[str]) -> str:
  free, n = name, 1
  while free in taken:
    n += 1
    free = f'{name}_{n}'
  return free
