"""Initialises and runs networks, whole or in part."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import contextlib
import functools
from typing import Any

from flax import linen as nn
import flax.core
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Affine,
  Array,
  FeaturePairs,
  Features,
  Network,
  Output,
  StageModule,
  Variables,
)
from jaxdistill.networks.graph import naming, traces

# ((name, shape, dtype), ...) of features: hashable, unlike the features.
Signature = tuple[tuple[str, tuple[int, ...], Any], ...]


def init(
  network: Network, rng: Array, features: Mapping[str, Any]
) -> Variables:
  """Returns initial variables for every stage.

  Args:
    network: the network.
    rng: a random key; each stage derives its own from it.
    features: what the network reads, {'image': `[B, H, W, C]`}; arrays or
      `jax.ShapeDtypeStruct`.

  Returns:
    {collection: {stage: ...}}.
  """
  signature = _signature(features)
  if isinstance(rng, jax.core.Tracer):
    return _initialize(network, signature, rng)
  try:
    variables: Variables = _compiled_initialize(network, signature, rng)
  except ValueError:
    # JAX rejects compiler options while something else is being traced.
    return _initialize(network, signature, rng)
  return variables


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

    S = S_L o ... o S_2 o S_1,    F_k = S_k(F_(k-1))

  Equation (1) of DistPro, and Equation (2) of Masked Layer Distillation, where
  each stage may also read further features.

  Args:
    network: the network.
    variables: its variables; those of stages that do not run may be missing.
    features: the known features: {'image': `[B, H, W, C]`} for a full pass, or
      any earlier feature to start from.
    only: the names of the stages to run; None runs all of them.
    train: whether the stages train, or the names of the stages that do. A stage
      that trains normalises with the statistics of the batch and updates its
      running statistics.
    rngs: name -> key, for stages that draw random numbers; each stage derives
      its own keys. Without the key 'dropout', stages that train omit dropout,
      stochastic depth and the like, as in inference, but still normalise as
      they do in training.

  Returns:
    (features, updates): the given features with those that were computed, and
    {collection: {stage: ...}} with the new values of all collections other than
    'params' of the stages that train.

  Raises:
    UsageError: `only` names a stage that does not exist, or a stage reads a
      feature that is neither given nor computed.
  """
  features = naming.with_groups(network, dict(features))
  updates: Variables = {}
  chosen = None if only is None else set(only)
  if chosen is not None:
    naming.check_stages(network, chosen)
  for i, stage in enumerate(network.stages):
    if chosen is not None and stage.name not in chosen:
      continue
    stage_variables = {
      c: tree[stage.name] for c, tree in variables.items() if stage.name in tree
    }
    keys = {k: jax.random.fold_in(v, i) for k, v in (rngs or {}).items()}
    stage_trains = train if isinstance(train, bool) else stage.name in train
    inputs = _inputs(network, i, features)
    outputs, changed = _apply_stage(
      stage.module, stage_trains, stage_variables, inputs, keys
    )
    features |= _named(network, i, outputs)
    for collection, tree in changed.items():
      updates.setdefault(collection, {})[stage.name] = tree
  return features, updates


def apply(network: Network, variables: Variables, image: Array) -> Output:
  """Returns the network's output in inference mode.

  Args:
    network: the network.
    variables: its variables.
    image: `[B, H, W, C]` as in training, that is standardised floats, not the
      raw uint8 images; `jd.preprocess` makes them.

  Returns:
    The network's `output`, for a classifier the logits `[B, num_classes]`.

  Raises:
    UsageError: the images are not floats.
  """
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise UsageError(
      f'image: expected standardised floats, as in training, got {image.dtype}'
    )
  features, _ = run(network, variables, {'image': image})
  return naming.output(network, features)


def shapes(
  network: Network, features: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shape of every feature of a full pass, computing nothing.

  Args:
    network: the network.
    features: what the network reads; see `init`.
  """
  return dict(_shapes(network, _signature(features))[1])


def variable_shapes(network: Network, features: Mapping[str, Any]) -> Variables:
  """Returns the shapes of the network's variables, computing nothing.

  Args:
    network: the network.
    features: what the network reads; see `init`.
  """
  return _shapes(network, _signature(features))[0]


def check_feature_pairs(
  student: Network,
  teacher: Network,
  feature_pairs: FeaturePairs,
  example: Mapping[str, Any],
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
  """Returns the shapes `[B, ...]` of each (student, teacher) feature pair.

  Args:
    student: the student's network.
    teacher: the teacher's network.
    feature_pairs: pairs of (student feature, teacher feature).
    example: what both networks read; see `init`.

  Raises:
    UsageError: a feature does not exist.
  """
  student_shapes = shapes(student, example)
  teacher_shapes = shapes(teacher, example)
  for student_feature, teacher_feature in feature_pairs:
    checks.choice('student feature', student_feature, student_shapes)
    checks.choice('teacher feature', teacher_feature, teacher_shapes)
  return tuple(
    (student_shapes[s].shape, teacher_shapes[t].shape) for s, t in feature_pairs
  )


@traces.shared
def _apply_stage(
  module: StageModule,
  train: bool,
  variables: Variables,
  inputs: Sequence[Array],
  keys: Mapping[str, Array],
) -> tuple[Any, Variables]:
  """Returns a stage's outputs and the new values of what it updates."""
  with _no_dropout_without_key() if train else contextlib.nullcontext():
    result: tuple[Any, Variables] = module.apply(
      variables,
      *inputs,
      train=train,
      mutable=[c for c in variables if c != 'params' and train],
      rngs=keys,
    )
  return result


@traces.shared
def _initialize_stage(
  module: StageModule,
  train: bool,
  rng: Array,
  key: Array,
  inputs: Sequence[Array],
) -> tuple[Variables, Any]:
  """Returns a stage's initial variables and its outputs with them."""
  variables: Variables = flax.core.unfreeze(
    module.init(key, *inputs, train=train)
  )
  keys = {'params': rng, 'dropout': rng}
  outputs = module.apply(variables, *inputs, train=train, rngs=keys)
  return variables, outputs


def _no_dropout_without_key() -> contextlib.AbstractContextManager[None]:
  """Makes every `nn.Dropout` that has no key return its input."""

  def call(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    module = context.module
    if isinstance(module, nn.Dropout) and context.method_name == '__call__':
      key_is_given = 'rng' in kwargs or module.has_rng(module.rng_collection)
      if not key_is_given:
        return args[0]
    return method(*args, **kwargs)

  return nn.intercept_methods(call)


def _signature(features: Mapping[str, Any]) -> Signature:
  return tuple(
    (name, tuple(x.shape), jnp.dtype(x.dtype)) for name, x in features.items()
  )


@functools.lru_cache(maxsize=256)
def _shapes(
  network: Network, signature: Signature
) -> tuple[Variables, dict[str, jax.ShapeDtypeStruct]]:
  """Returns the shapes of the variables and of all features, in order."""
  variables: Variables = {}
  features: dict[str, Any] = {
    name: jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
    for name, shape, dtype in signature
  }
  naming.with_groups(network, features)
  for i, stage in enumerate(network.stages):
    read = functools.partial(_inputs, network, i)
    # Only a map of images computes something.
    inputs = jax.eval_shape(read, features) if stage.image else read(features)
    stage_variables, outputs = _stage_shapes(
      stage.module, tuple((x.shape, x.dtype) for x in inputs)
    )
    for collection, tree in stage_variables.items():
      variables.setdefault(collection, {})[stage.name] = tree
    features |= _named(network, i, outputs)
  return variables, features


@functools.lru_cache(maxsize=4096)
def _stage_shapes(
  module: StageModule, inputs: tuple[tuple[tuple[int, ...], Any], ...]
) -> tuple[Variables, Any]:
  """Returns the shapes of a stage's variables and outputs.

  Deep networks repeat their blocks, of which each is traced once.

  Args:
    module: what the stage runs.
    inputs: (shape, dtype) of each feature that the stage reads.
  """
  examples = [
    jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]
    for shape, dtype in inputs
  ]
  rng = jax.random.key(0)

  def initialize(rng: Array, *inputs: Array) -> Any:
    if isinstance(module, nn.Module):
      outputs, variables = module.init_with_output(rng, *inputs, train=False)
    else:
      variables = module.init(rng, *inputs, train=False)
      outputs = apply_module(rng, variables, *inputs)
    return flax.core.unfreeze(variables), outputs

  def apply_module(rng: Array, variables: Any, *inputs: Array) -> Any:
    return module.apply(variables, *inputs, train=False, rngs={'dropout': rng})

  if hasattr(module, 'variable_shapes'):
    # Such a module need not be able to make new variables.
    variables = module.variable_shapes()
    outputs = jax.eval_shape(apply_module, rng, variables, *examples)
    return variables, outputs
  shapes: tuple[Variables, Any] = jax.eval_shape(initialize, rng, *examples)
  return shapes


def _initialize(
  network: Network, signature: Signature, rng: Array
) -> Variables:
  """Returns initial variables for features of a signature.

  Args:
    network: the network.
    signature: of the features that it reads.
    rng: the random key.
  """
  variables: Variables = {}
  features = {name: jnp.zeros(shape, dtype) for name, shape, dtype in signature}
  features = naming.with_groups(network, features)
  for i, stage in enumerate(network.stages):
    inputs = _inputs(network, i, features)
    stage_variables, outputs = _initialize_stage(
      stage.module, False, rng, jax.random.fold_in(rng, i), inputs
    )
    for collection, tree in stage_variables.items():
      variables.setdefault(collection, {})[stage.name] = tree
    features |= _named(network, i, outputs)
  return variables


# Compiled once per network. The compiler drops the forward pass, because only
# the variables are returned. The many small random generators compile four
# times faster without optimisation.
_compiled_initialize = jax.jit(
  _initialize,
  static_argnums=(0, 1),
  compiler_options={'xla_backend_optimization_level': 0},
)


def _inputs(network: Network, i: int, features: Features) -> Sequence[Array]:
  """Returns the features that the stage of index `i` reads."""
  stage = network.stages[i]
  before = network.stages[i - 1].name if i else 'image'
  names = stage.inputs or (before,)
  for name in names:
    if name not in features:
      raise UsageError(
        f'stage {stage.name!r} reads {name!r}, which is not among the features '
        f'given or computed: {", ".join(features)}'
      )
  names = (*names, *(name for name in stage.optional if name in features))
  inputs = [features[name] for name in names]
  if stage.image is None:
    return inputs
  return [
    _mapped(x, stage.image) if name == 'image' else x
    for name, x in zip(names, inputs)
  ]


def _mapped(image: Array, affine: Affine) -> Array:
  """Applies an affine map to each channel of images `[B, H, W, C]`."""
  scale, offset = (jnp.asarray(x, image.dtype) for x in affine)
  return image * scale[None, None, None] + offset[None, None, None]


def _named(network: Network, i: int, outputs: Any) -> Features:
  """Returns the outputs of a stage by full name, and those of its group."""
  name = network.stages[i].name
  if not isinstance(outputs, Mapping):
    outputs = {'': outputs}
  group = name.partition('.')[0]
  ends_group = naming.groups(network)[group][-1] == name
  features: Features = {}
  for key, value in outputs.items():
    if key == '' or key.startswith('.'):
      features[name + key] = value
      if ends_group:
        features[group + key] = value
    else:
      features[key] = value
  return features
