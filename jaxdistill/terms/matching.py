"""Weighted matching of L2T-ww: which pairs of features, and which channels.

A network for each pair of features says so of each image, from the teacher's
feature; see `methods.l2t_ww`.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.networks import layers, staged
from jaxdistill.terms import helpers, pairs
from jaxdistill.types import Array, Cut, Features, Network, Stage, Variables


class Matching(NamedTuple):
  """What is matched with what.

  Attributes:
    cut: pairs of features.
    helpers: brings each of the student's to the teacher's channels.
    weights: the networks that weigh, one stage for each pair.
  """

  cut: Cut
  helpers: Network
  weights: Network


class Projection(nn.Module):
  """1x1 convolution with bias to `channels`."""

  channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return layers.conv(
      self.channels, 1, use_bias=True, initial='uniform', name='conv'
    )(helpers.as_map(x))


class Weights(nn.Module):
  """Of a teacher's feature, how much its channels and its pair count.

    softmax(linear(mean of x)),  relu6(linear(mean of x))

  The first is `[B, C]` and begins equal; the second, '.pair', is `[B]` and
  begins near 1.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    x = helpers.as_map(x).mean((1, 2)).astype(jnp.float32)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    channels = nn.Dense(x.shape[-1], kernel_init=zeros, name='channels')(x)
    uniform = layers.torch_uniform(x.shape[-1])
    pair = nn.Dense(1, kernel_init=uniform, bias_init=ones, name='pair')(x)
    return {'': nn.softmax(channels), '.pair': nn.relu6(pair[:, 0])}


def build(pair: pairs.Pair, cut: pairs.Pairs = None) -> Matching:
  """The parts of a matching.

  Args:
    pair: the networks.
    cut: pairs of features; None: each of the student's groups with each of the
      teacher's, of those that `pairs.middle_cut` pairs.

  Raises:
    UsageError: a feature does not exist.
  """
  if cut is None:
    levels = pairs.middle_cut(pair, None)
    cut = tuple((s, t) for _, t in levels for s, _ in levels)
  chosen = pairs.check(pair, cut)
  ours, theirs = [], []
  for n, (s, t) in enumerate(chosen):
    channels = pairs.map_shape(pair.teacher_shapes, t)[-1]
    ours.append(Stage(f'match{n}', Projection(channels), (f'student/{s}',)))
    theirs.append(Stage(f'weights{n}', Weights(), (f'teacher/{t}',)))
  return Matching(chosen, Network(tuple(ours)), Network(tuple(theirs)))


def loss(
  matching: Matching,
  variables: Variables,
  weights: Variables,
  features: Features,
) -> Array:
  """The weighted distance of all pairs, mean over the batch.

    sum_p mean_b pair_p,b sum_c channel_p,b,c mean_hw (s_p - t_p)**2

  The teacher's map is resized to the student's, bilinearly.

  Args:
    matching: what with what.
    variables: of its helpers.
    weights: variables of the networks that weigh.
    features: 'student/...' and 'teacher/...', `[B, ...]`.
  """
  ours, _ = staged.run(matching.helpers, variables, features, train=True)
  said, _ = staged.run(matching.weights, weights, features)
  total = jnp.zeros(())
  for n, (_, t) in enumerate(matching.cut):
    student = ours[f'match{n}']
    teacher = helpers.as_map(features[f'teacher/{t}'])
    size = (*student.shape[:3], teacher.shape[-1])
    teacher = jax.image.resize(teacher, size, 'bilinear', antialias=False)
    distance = ((student - teacher).astype(jnp.float32) ** 2).mean((1, 2))
    weighted = (said[f'weights{n}'] * distance).sum(-1)
    total += (said[f'weights{n}.pair'] * weighted).mean()
  return total
