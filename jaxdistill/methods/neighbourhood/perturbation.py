"""The thresholding effect: how much error in its parts a network tolerates.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, Section 3 and Appendix B.1, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.analysis import curves
from jaxdistill.core import checks, optional
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Array,
  Augment,
  Batch,
  Features,
  Model,
  Network,
  Task,
  Variables,
)
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import noisy
from jaxdistill.tasks import evaluation

if TYPE_CHECKING:
  from matplotlib.figure import Figure


class Sample(NamedTuple):
  """The examples that a network is measured on.

  Attributes:
    split: {'image': uint8 `[N, H, W, C]`, 'index': `[N]`, and the targets}.
    task: what the labels mean.
    preprocess: the preparation of images for evaluation (standardisation).
  """

  split: Mapping[str, Any]
  task: Task
  preprocess: Augment


def perturbed(
  network: Network,
  variables: Variables,
  image: Array,
  amplitudes: Mapping[str, Array],
  rng: Array,
) -> Features:
  """Runs a network with noise added to the outputs of some stages.

    S_i = T_i + delta,  delta ~ N(0, amplitude**2)

  Equation (2) of Neighbourhood Distillation. The network is in inference mode.

  Args:
    network: the network.
    variables: its variables.
    image: `[B, H, W, C]`.
    amplitudes: stage -> standard deviation of the noise, in units of the
      activations.
    rng: the random key of the noise.

  Returns:
    The features.
  """
  graph.check_stages(network, amplitudes)
  features: Features = {'image': image}
  for i, stage in enumerate(network.stages):
    before = set(features)
    features, _ = graph.run(network, variables, features, only=(stage.name,))
    if stage.name not in amplitudes:
      continue
    clean = features[stage.name]
    noise = jax.random.normal(jax.random.fold_in(rng, i), clean.shape)
    noised = clean + amplitudes[stage.name] * noise.astype(clean.dtype)
    # The name of a group may refer to the same array.
    aliases = {k for k in features if k not in before and features[k] is clean}
    features |= dict.fromkeys((stage.name, *aliases), noised)
  return features


def thresholding(
  model: Model,
  sample: Sample,
  *,
  epsilons: Sequence[float],
  blocks: Sequence[str] | None = None,
  counts: Sequence[int] | None = None,
  draws: int = 3,
  seed: int = 0,
) -> dict[str, list[curves.Point]]:
  """Measures how accuracy changes when blocks are perturbed (figures 1 and 5).

  Args:
    model: the trained network.
    sample: the examples that it is measured on.
    epsilons: the amplitudes of the noise, at least 0.
    blocks: stages, in the order in which they are perturbed; None means the
      stages of the groups that are called 'group...'.
    counts: how many of them are perturbed, one line each; None means all.
    draws: the number of draws of the noise; the points' standard deviation is
      that over draws.
    seed: the seed of the noise.

  Returns:
    '3 blocks' -> points of (epsilon, change of the score as it is shown), as
    `curves.draw` takes them.

  Raises:
    UsageError: a stage does not exist, or a number is out of its range.
  """
  names = _blocks(model.network, blocks)
  checks.integer('draws', draws)
  for epsilon in epsilons:
    checks.number('epsilons', epsilon, at_least=0)
  for count in counts or ():
    checks.number('counts', count, at_least=1, at_most=len(names))
  score = sample.task.score
  clean = score.shown(_score(model, sample))

  def point(count: int, epsilon: float) -> curves.Point:
    amplitudes = {
      name: jnp.float32(epsilon if i < count else 0.0)
      for i, name in enumerate(names)
    }
    changes = [
      score.shown(_noisy_score(model, sample, amplitudes, seed + draw)) - clean
      for draw in range(draws)
    ]
    return _point(epsilon, changes)

  return {
    f'{count} blocks': [point(count, epsilon) for epsilon in epsilons]
    for count in counts or (len(names),)
  }


def _blocks(network: Network, blocks: Sequence[str] | None) -> tuple[str, ...]:
  """Returns the stages to perturb.

  Raises:
    UsageError: a stage does not exist, or there are none.
  """
  names = tuple(
    blocks
    or (
      stage.name
      for stage in network.stages
      if stage.name.startswith('group')
      and not isinstance(stage.module, noisy.GaussianNoise)
    )
  )
  if not names:
    raise UsageError(
      'blocks: the network has no groups; give some of its stages: '
      f'{", ".join(graph.stage_names(network))}'
    )
  graph.check_stages(network, names)
  return names


class Accumulation(NamedTuple):
  """How the errors of layers add up (figure 4), as the score is shown.

  Attributes:
    layers: 'stage/module', from the image to the outputs.
    noise: the standard deviation of the noise on each kernel, as a multiple of
      the kernel's own.
    single: the drop of the score with only this layer perturbed.
    summed: the sums of `single` up to each layer.
    together: the drop with all layers up to this one perturbed.
  """

  layers: tuple[str, ...]
  noise: tuple[float, ...]
  single: tuple[float, ...]
  summed: tuple[float, ...]
  together: tuple[float, ...]


def accumulation(
  model: Model,
  sample: Sample,
  *,
  drop: float = 0.01,
  draws: int = 5,
  halvings: int = 8,
  seed: int = 0,
) -> Accumulation:
  """Measures how errors add up when each layer alone costs a given drop.

  Noise is added to the kernels of convolutions: to each one alone, and to all
  up to each one. The noise of each layer is found by bisection on the mean drop
  over draws, within (0, 4) standard deviations of the kernel.

  Args:
    model: the trained network.
    sample: the examples that it is measured on.
    drop: the drop of the score, in (0, 1), that each layer alone should cost.
    draws: the number of draws of the noise that a drop is averaged over.
    halvings: the number of steps of the bisection.
    seed: the seed of the noise.

  Raises:
    UsageError: the drop is out of its range, or there are no convolutions.
  """
  checks.number('drop', drop, above=0, below=1)
  params = model.variables['params']
  order = [n for n in graph.stage_names(model.network) if n in params]
  paths = [
    (name, *(str(key.key) for key in path))
    for name in order
    for path, x in jax.tree_util.tree_leaves_with_path(params[name])
    if x.ndim == 4
  ]
  if not paths:
    raise UsageError('model: expected a network with convolutions, got none')
  metric, clean = sample.task.score, _score(model, sample)

  def cost(noise: Mapping[tuple[str, ...], float]) -> float:
    scores = [
      _score(_with_noise(model, noise, seed + draw), sample)
      for draw in range(draws)
    ]
    return metric.quality(clean - float(np.mean(scores)))

  def tuned(path: tuple[str, ...]) -> float:
    low, high = 0.0, 4.0
    for _ in range(halvings):
      middle = (low + high) / 2
      low, high = (
        (middle, high) if cost({path: middle}) < drop else (low, middle)
      )
    return (low + high) / 2

  noise = {path: tuned(path) for path in paths}
  single = [metric.shown(cost({path: noise[path]})) for path in paths]
  together = [
    metric.shown(cost({path: noise[path] for path in paths[: i + 1]}))
    for i in range(len(paths))
  ]
  return Accumulation(
    tuple('/'.join(path[:-1]) for path in paths),
    tuple(noise.values()),
    tuple(single),
    tuple(np.cumsum(single).tolist()),
    tuple(together),
  )


def draw_accumulation(accumulation: Accumulation) -> 'Figure':
  """Draws figure 4: single drops, their sums, and the drops together.

  Args:
    accumulation: the result of `accumulation`.
  """
  figure = optional.require('matplotlib.figure', 'the figure of errors')
  drawing = figure.Figure(figsize=(5, 3.5), layout='constrained')
  axes = drawing.add_subplot()
  x = np.arange(1, len(accumulation.layers) + 1)
  axes.bar(x, accumulation.single, color='C7', label='each layer alone')
  axes.plot(x, accumulation.summed, 'C0', label='their sum')
  axes.plot(x, accumulation.together, 'k', label='all layers up to this one')
  axes.set(xlabel='layer', ylabel='drop of accuracy (%)')
  axes.legend()
  return drawing


def _with_noise(
  model: Model, noise: Mapping[tuple[str, ...], float], seed: int
) -> Model:
  """Adds noise to some kernels; it depends only on the kernel and the seed."""
  params = model.variables['params']
  paths = [
    tuple(str(key.key) for key in path)
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]

  def noised(path: Sequence[Any], x: Array) -> Array:
    name = tuple(str(key.key) for key in path)
    if name not in noise:
      return x
    rng = jax.random.fold_in(jax.random.key(seed), paths.index(name))
    size = noise[name] * x.std()
    return x + size * jax.random.normal(rng, x.shape, x.dtype)

  noised_params = jax.tree_util.tree_map_with_path(noised, params)
  return model._replace(variables={**model.variables, 'params': noised_params})


def _score(model: Model, sample: Sample) -> float:
  """Returns the task's score."""
  metrics = evaluation.evaluate(
    model, sample.split, sample.task, sample.preprocess
  )
  return metrics[sample.task.score.name]


def _noisy_score(
  model: Model, sample: Sample, amplitudes: Mapping[str, Array], seed: int
) -> float:
  """Returns the task's score with noise on some stages."""
  tree: dict[str, Any] = {
    'model': model.variables,
    'amplitudes': dict(amplitudes),
    'rng': jax.random.key(seed),
  }
  statistics = evaluation.over(
    _noisy_statistics, Model(model.network, tree), *sample
  )
  return sample.task.summarize(statistics)[sample.task.score.name]


def _noisy_statistics(
  network: Network,
  task: Task,
  preprocess: Callable[[Array, Batch], Batch],
  tree: dict[str, Any],
  batch: Batch,
) -> Any:
  """Computes the task's statistics on a batch with noise on some stages."""
  batch = preprocess(jax.random.key(0), batch)
  # The index of a batch's first image gives each batch its own noise.
  rng = jax.random.fold_in(tree['rng'], batch['index'][0])
  features = perturbed(
    network, tree['model'], batch['image'], tree['amplitudes'], rng
  )
  return task.statistics(graph.output(network, features), batch)


def _point(x: float, values: Sequence[float]) -> curves.Point:
  """Makes a point from the values of several draws."""
  sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
  return curves.Point(float(x), float(np.mean(values)), sd)
