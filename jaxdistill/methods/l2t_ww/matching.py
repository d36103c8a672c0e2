"""The weighted distance of L2T-ww between pairs of features.

For each pair of features, a small network computes from the teacher's feature
how much the pair and each of its channels count for an image.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill import objectives
from jaxdistill.core.types import (
  Array,
  FeaturePairs,
  Features,
  Network,
  Stage,
  Variables,
)
from jaxdistill.networks import description, graph, layers
from jaxdistill.objectives import maps, pairs


class Matching(NamedTuple):
  """The feature pairs that are matched, with their networks.

  Attributes:
    feature_pairs: pairs (student feature, teacher feature).
    adapters: bring each student feature to the teacher's number of channels.
    weights: compute the weights, one stage for each pair.
  """

  feature_pairs: FeaturePairs
  adapters: Network
  weights: Network


@description.register
class Projection(nn.Module):
  """A 1x1 convolution with bias.

  Attributes:
    channels: the number of output channels.
  """

  channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return layers.conv(
      self.channels, 1, use_bias=True, initial='uniform', name='conv'
    )(maps.as_map(x))


@description.register
class Weights(nn.Module):
  """Computes weights of channels and of a pair from the teacher's feature.

    softmax(linear(mean of x)),  relu6(linear(mean of x))

  The first output `[B, C]` weighs the channels, equally at the start. The
  second, '.pair' `[B]`, weighs the pair and starts near 1.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    x = maps.as_map(x).mean((1, 2)).astype(jnp.float32)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    channels = nn.Dense(x.shape[-1], kernel_init=zeros, name='channels')(x)
    uniform = layers.torch_uniform(x.shape[-1])
    pair = nn.Dense(1, kernel_init=uniform, bias_init=ones, name='pair')(x)
    return {'': nn.softmax(channels), '.pair': nn.relu6(pair[:, 0])}


def build(
  pair: objectives.Pair, feature_pairs: FeaturePairs | None = None
) -> Matching:
  """Builds the networks for the feature pairs of two networks.

  Args:
    pair: the networks.
    feature_pairs: pairs (student feature, teacher feature). None means every
      combination of a student's and a teacher's group, among the groups that
      `pairs.middle_pairs` returns.

  Raises:
    UsageError: a feature does not exist.
  """
  if feature_pairs is None:
    levels = pairs.middle_pairs(pair, None)
    feature_pairs = tuple((s, t) for _, t in levels for s, _ in levels)
  chosen = pairs.check(pair, feature_pairs)
  pairs.check_maps(pair, chosen)
  projections, weights = [], []
  for n, (s, t) in enumerate(chosen):
    module = Projection(pairs.map_shape(pair.teacher_shapes, t)[-1])
    projections.append(Stage(f'match{n}', module, (f'student/{s}',)))
    weights.append(Stage(f'weights{n}', Weights(), (f'teacher/{t}',)))
  return Matching(chosen, Network(tuple(projections)), Network(tuple(weights)))


def loss(
  matching: Matching,
  variables: Variables,
  weights: Variables,
  features: Features,
) -> Array:
  """Computes the weighted distance of all pairs, averaged over the batch.

    sum_p mean_b pair_p,b sum_c channel_p,b,c mean_hw (s_p - t_p)**2

  The teacher's map is resized bilinearly to the size of the student's.

  Args:
    matching: the feature pairs.
    variables: the variables of its adapters.
    weights: the variables of its networks that compute weights.
    features: 'student/...' and 'teacher/...', `[B, ...]`.

  Returns:
    The distance, `[]`.
  """
  projected, _ = graph.run(matching.adapters, variables, features, train=True)
  weights_of, _ = graph.run(matching.weights, weights, features)
  total = jnp.zeros(())
  for n, (_, t) in enumerate(matching.feature_pairs):
    student = projected[f'match{n}']
    teacher = maps.as_map(features[f'teacher/{t}'])
    size = (*student.shape[:3], teacher.shape[-1])
    teacher = jax.image.resize(teacher, size, 'bilinear', antialias=False)
    distance = ((student - teacher).astype(jnp.float32) ** 2).mean((1, 2))
    weighted = (weights_of[f'weights{n}'] * distance).sum(-1)
    total += (weights_of[f'weights{n}.pair'] * weighted).mean()
  return total
