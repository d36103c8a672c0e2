"""Adopts a user's Flax Linen module."""

from collections.abc import Mapping
import inspect
from typing import Any, cast

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Variables
from jaxdistill.networks.adapters import functions

# Where Linen puts the values that are captured or sown.
_INTERMEDIATES = 'intermediates'


def from_linen(
  module: nn.Module,
  train: str = 'train',
  *,
  features: Mapping[str, str] | None = None,
) -> Network:
  """Returns a network of one stage, 'model', that runs a Flax Linen module.

  The module is called with a batch of images `[B, H, W, C]` and returns the
  logits `[B, num_classes]`, or a dict that holds them as 'logits' and further
  features under their names.

  Args:
    module: the module.
    train: the name of the module's argument that says whether it trains; ''
      if it has none. 'deterministic', 'use_running_average' and 'inference' are
      understood as the opposite.
    features: feature -> the dotted path of a submodule ('encoder.block_3')
      whose output becomes the feature, or of a value that the module sows into
      'intermediates'. If it is called several times, the last call counts.

  Returns:
    A network whose output is the feature 'model'. It runs as a whole; see
    `from_functions`. Running it raises a UsageError if a path of `features`
    names no submodule that is called.

  Raises:
    UsageError: the module's `__call__` has no argument of the name `train`.

  Example:
    network = jd.networks.from_linen(MyModule(), features={'map': 'conv_2'})
  """
  feature_paths = dict(features or {})
  _check_train_argument(module, train)

  def initialize(rng: Array, image: Array, /) -> Variables:
    variables = module.init(
      rng, image, **functions.train_argument(train, False)
    )
    return {k: v for k, v in variables.items() if k != _INTERMEDIATES}

  def run_module(
    variables: Variables,
    image: Array,
    is_train: bool,
    rngs: Mapping[str, Array] | None,
    /,
  ) -> tuple[Any, Variables]:
    called: list[str] = []

    def is_feature(submodule: nn.Module, method: str) -> bool:
      path = '.'.join(submodule.path)
      if method == '__call__' and path:
        called.append(path)
      return method == '__call__' and path in feature_paths.values()

    mutable = [c for c in variables if c != 'params'] if is_train else []
    outputs, updates = cast(
      tuple[Any, Variables],
      module.apply(
        variables,
        image,
        **functions.train_argument(train, is_train),
        mutable=[*mutable, _INTERMEDIATES] if feature_paths else mutable,
        rngs=dict(rngs or {}),
        capture_intermediates=is_feature if feature_paths else False,
      ),
    )
    if not feature_paths:
      return outputs, updates
    intermediates = _by_path(updates.get(_INTERMEDIATES, {}))
    for path in feature_paths.values():
      if path not in intermediates:
        raise checks.unknown(
          'submodule', path, dict.fromkeys((*called, *intermediates))
        )
    return (
      functions.with_features(outputs, feature_paths, intermediates),
      {k: v for k, v in updates.items() if k != _INTERMEDIATES},
    )

  return functions.from_functions(initialize, run_module)


def train_argument(module: nn.Module) -> str:
  """Returns the argument that tells a module whether it trains; '' if none.

  Args:
    module: the module.
  """
  names = inspect.signature(module.__call__).parameters
  return next(filter(functions.is_train_argument, names), '')


def _check_train_argument(module: nn.Module, train: str) -> None:
  """Checks that a module's `__call__` can take an argument of this name."""
  call = getattr(module, '__call__', None)  # noqa: B004
  if not train or call is None:  # Flax says what a module without it lacks
    return
  parameters = inspect.signature(call).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return
  # The first argument is the batch of images.
  valid = [
    p.name
    for p in list(parameters)[1:]
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  ]
  if train not in valid:
    kind = f'argument train of {type(module).__name__}.__call__'
    raise checks.unknown(kind, train, [*valid, "'' if it has none"])


def _by_path(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns dotted path -> value, of several values the last one."""
  values: dict[str, Any] = {}
  for key, value in tree.items():
    path = prefix if key == '__call__' else f'{prefix}.{key}'.lstrip('.')
    if isinstance(value, Mapping):
      values |= _by_path(value, path)
    else:
      values[path] = value[-1] if isinstance(value, tuple) else value
  return values
