"""Several trained networks as one, whose output joins their vectors."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.core.types import Array, Model, Network, Stage, Variables
from jaxdistill.networks import description, graph


class Scale(NamedTuple):
  """How the vectors of a network are standardised.

  Attributes:
    mean: the mean of the vectors `[D]`.
    length: the root of the mean squared distance of the vectors from `mean`.
  """

  mean: Array
  length: Array


@dataclasses.dataclass(frozen=True)
class WholeNetwork:
  """A network as the module of a stage; it runs in inference mode only.

  The output of the stage is the main output of the network. The names of the
  other features are the name of the stage, a dot, and their own name.

  Attributes:
    network: the network.
  """

  network: Network

  def init(self, rng: Array, *inputs: Array, train: bool) -> Variables:
    """Returns initial variables; see `core.types.StageModule`."""
    del train
    return graph.init(self.network, rng, {'image': inputs[0]})

  def apply(
    self,
    variables: Variables,
    *inputs: Array,
    train: bool,
    mutable: Any = None,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """Returns the features; if `mutable` is given, also {}, for no updates."""
    del train, rngs
    features, _ = graph.run(self.network, variables, {'image': inputs[0]})
    main = graph.main_output(self.network)
    named = {
      f'.{k}': v for k, v in features.items() if k not in (main, 'image')
    }
    outputs = {'': features[main], **named}
    return outputs if mutable is None else (outputs, {})


@description.register
class Standardized(nn.Module):
  """Subtracts the mean of vectors and divides by their typical length.

  Both are parameters: 'mean' `[D]` and 'length' `[]`; see `Scale`.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    mean = self.param('mean', nn.initializers.zeros, x.shape[1:])
    length = self.param('length', nn.initializers.ones, ())
    return (x.astype(jnp.float32) - mean[None]) / length


@description.register
class Concatenated(nn.Module):
  """Joins vectors `[B, D1]`, `[B, D2]`, ... to `[B, D1 + D2 + ...]`."""

  @nn.compact
  def __call__(self, *vectors: Array, train: bool) -> Array:
    del train
    return jnp.concatenate(vectors, -1)


def joined(models: Mapping[str, Model], scales: Mapping[str, Scale]) -> Model:
  """Returns one model whose output joins the standardised vectors of several.

  Args:
    models: name -> a model whose main output is a vector `[B, D]`.
    scales: name -> how its vectors are standardised.

  Returns:
    A model in which each network is a stage with the name of the network.
  """
  stages: list[Stage] = []
  variables: dict[str, dict[str, Any]] = {'params': {}}
  for name, model in models.items():
    vector = f'{name}_vector'
    stages.append(Stage(name, WholeNetwork(model.network), ('image',)))
    stages.append(Stage(vector, Standardized(), (name,)))
    for collection, tree in model.variables.items():
      variables.setdefault(collection, {})[name] = tree
    variables['params'][vector] = jax.tree.map(
      jnp.asarray, scales[name]._asdict()
    )
  inputs = tuple(f'{name}_vector' for name in models)
  stages.append(Stage('vectors', Concatenated(), inputs))
  return Model(Network(tuple(stages)), variables)
