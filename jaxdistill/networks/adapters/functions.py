"""Adopts a model that is given as two plain functions."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol

import jax

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage, Variables

# Arguments by which some modules are told that they do *not* train.
_INFERENCE_ARGUMENTS = ('deterministic', 'use_running_average', 'inference')


class InitFunction(Protocol):
  """Makes the initial variables of a model."""

  def __call__(self, rng: Array, image: Array, /) -> Variables:
    """Returns {'params': ..., other collections}.

    Args:
      rng: a random key.
      image: an example batch `[B, H, W, C]`.
    """


class ApplyFunction(Protocol):
  """Runs a model."""

  def __call__(
    self,
    variables: Variables,
    image: Array,
    train: bool,
    rngs: Mapping[str, Array] | None,
    /,
  ) -> tuple[Any, Variables]:
    """Returns (outputs, updates).

    Outputs are the logits `[B, num_classes]`, or a dict that holds them as
    'logits' and further features under their names. Updates are the
    collections other than 'params' that the call has changed, {} if none.

    Args:
      variables: the variables of the model.
      image: a batch `[B, H, W, C]`.
      train: whether the model trains.
      rngs: name -> key, for dropout and the like.
    """


def from_functions(init: InitFunction, apply: ApplyFunction) -> Network:
  """Returns a network of one stage, 'model', that runs two functions.

  The stage runs as a whole, so methods that need to run a part of a network
  reject it. All its features are available to the others.

  Args:
    init: (rng, image) -> {'params': ..., other collections}.
    apply: (variables, image, train, rngs) -> (outputs, updates); see
      `ApplyFunction`.

  Returns:
    A network whose output is the feature 'model', and whose other features are
    the named outputs of `apply`. Running it raises a UsageError if the outputs
    are neither an array nor a dict with 'logits'.

  Example:
    def init(rng, image):
      return {'params': {'w': jax.random.normal(rng, (image.shape[-1], 10))}}

    def apply(variables, image, train, rngs):
      pooled = image.mean((1, 2))
      logits = pooled @ variables['params']['w']
      return {'logits': logits, 'pooled': pooled}, {}

    network = jd.networks.from_functions(init, apply)
  """
  return Network((Stage('model', FunctionModule(init, apply)),))


@dataclasses.dataclass(frozen=True)
class FunctionModule:
  """Two functions behind the interface of a stage's module."""

  initialize: InitFunction
  function: ApplyFunction

  def init(self, rng: Array, *inputs: Array, train: bool) -> Variables:
    """Returns initial variables; see `core.types.StageModule`."""
    del train
    (image,) = inputs
    return self.initialize(rng, image)

  def apply(
    self,
    variables: Variables,
    *inputs: Array,
    train: bool,
    mutable: Any = None,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """Returns outputs, with updates if `mutable` is given."""
    (image,) = inputs
    outputs, updates = self.function(variables, image, train, rngs)
    outputs = stage_outputs(outputs)
    if mutable is None:
      return outputs
    return outputs, {k: v for k, v in updates.items() if k in mutable}


def stage_outputs(outputs: Any) -> Any:
  """Returns a model's outputs as a stage names them: the logits as ''.

  Raises:
    UsageError: the outputs are neither an array nor a dict with 'logits'.
  """
  if isinstance(outputs, Mapping) and 'logits' in outputs:
    return {'' if k == 'logits' else k: v for k, v in outputs.items()}
  if isinstance(outputs, Mapping):
    got = f'a dict with {", ".join(map(repr, outputs)) or "no entries"}'
  elif not isinstance(outputs, jax.Array) and not hasattr(outputs, 'shape'):
    got = type(outputs).__name__
  else:
    return outputs
  raise UsageError(
    f"outputs of the model: expected logits or a dict with 'logits', got {got}"
  )


def with_features(
  outputs: Any, features: Mapping[str, str], intermediates: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a model's outputs as a dict that also holds named features.

  Args:
    outputs: logits, or a dict with 'logits'.
    features: feature -> the path of the submodule whose output it is.
    intermediates: path -> output, for the submodules that were called.

  Raises:
    UsageError: a submodule was not called, its output is not an array, or two
      features share a name.
  """
  outputs = stage_outputs(outputs)
  if not isinstance(outputs, Mapping):
    outputs = {'': outputs}
  named = {'logits' if k == '' else k: v for k, v in outputs.items()}
  for feature, path in features.items():
    if feature in named:
      raise UsageError(
        f'features: {feature!r} is already the name of an output of the model'
      )
    value = intermediates[path]
    if not hasattr(value, 'shape'):
      raise UsageError(
        f'features.{feature}: expected {path!r} to return an array, got '
        f'{type(value).__name__}'
      )
    named[feature] = value
  return named


def train_argument(name: str, train: bool) -> dict[str, Any]:
  """Returns the keyword argument that tells a module whether it trains.

  Args:
    name: the argument of the module; '' if it has none. 'deterministic',
      'use_running_average' and 'inference' are true when it does not train.
    train: whether it trains.
  """
  if not name:
    return {}
  return {name: not train if name in _INFERENCE_ARGUMENTS else train}


def is_train_argument(name: str) -> bool:
  """Returns whether an argument's name says that a module trains, or not."""
  return name in ('train', 'training', 'is_training', *_INFERENCE_ARGUMENTS)
