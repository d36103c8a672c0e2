"""The thresholding effect: how much error of its pieces a network bears.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, Section 3 and Appendix B.1, https://arxiv.org/abs/2010.01189
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib import figure
import numpy as np

from jaxdistill import evaluation
from jaxdistill.analysis import curves
from jaxdistill.networks import noisy, staged
from jaxdistill.types import (
  Array,
  Augment,
  Batch,
  Features,
  Model,
  Network,
  Task,
  UsageError,
  Variables,
)


class Sample(NamedTuple):
  """What a network is measured on.

  Attributes:
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`, 'index': `[N]`}.
    task: what the labels mean.
    preprocess: what stands in for augmentation (standardisation).
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
  """Features of a pass with noise on the outputs of some stages.

    S_i = T_i + delta,  delta ~ N(0, amplitude**2)

  Equation (2) of Neighbourhood Distillation.

  Args:
    network: in inference mode.
    variables: its variables.
    image: `[B, H, W, C]`.
    amplitudes: stage -> standard deviation of the noise, in units of the
      activations.
    rng: of the noise.
  """
  staged.check_stages(network, amplitudes)
  features: Features = {'image': image}
  for i, stage in enumerate(network.stages):
    before = set(features)
    features, _ = staged.run(network, variables, features, only=(stage.name,))
    if stage.name not in amplitudes:
      continue
    clean = features[stage.name]
    noise = jax.random.normal(jax.random.fold_in(rng, i), clean.shape)
    dirty = clean + amplitudes[stage.name] * noise.astype(clean.dtype)
    # The group's name stands for the same array.
    new = {k for k in features if k not in before and features[k] is clean}
    features |= dict.fromkeys((stage.name, *new), dirty)
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
  """Change of accuracy when blocks are perturbed (Figures 1 and 5).

  Args:
    model: the trained network.
    sample: what it is measured on.
    epsilons: amplitudes of the noise.
    blocks: in the order in which they are perturbed; None: the stages of the
      groups that are named 'group...'.
    counts: how many of them, one line each; None: all.
    draws: of the noise; the points' sd is over them.
    seed: of the noise.

  Returns:
    '3 blocks' -> points of (epsilon, change of the score in percent), as
    `curves.draw` takes them.

  Raises:
    UsageError: there is no such stage, or not so many.
  """
  names = staged.stage_names(model.network)
  chosen = tuple(
    blocks
    or (
      stage.name
      for stage in model.network.stages
      if stage.name.startswith('group')
      and not isinstance(stage.module, noisy.GaussianNoise)
    )
  )
  if not chosen:
    raise UsageError(f'blocks: none; the stages are {", ".join(names)}')
  staged.check_stages(model.network, chosen)
  if draws < 1 or min(epsilons, default=0.0) < 0:
    raise UsageError(
      f'wanted draws of at least 1 and epsilons of at least 0, got {draws} and '
      f'{tuple(epsilons)}'
    )
  for count in counts or ():
    if not 0 < count <= len(chosen):
      raise UsageError(f'counts: {count}; there are {len(chosen)} blocks')
  clean = 100 * _score(model, sample)

  def point(count: int, epsilon: float) -> curves.Point:
    amplitudes = {
      name: jnp.float32(epsilon if i < count else 0.0)
      for i, name in enumerate(chosen)
    }
    found = [
      100 * _noisy_score(model, sample, amplitudes, seed + draw) - clean
      for draw in range(draws)
    ]
    return _point(epsilon, found)

  return {
    f'{count} blocks': [point(count, epsilon) for epsilon in epsilons]
    for count in counts or (len(chosen),)
  }


class Accumulation(NamedTuple):
  """How errors of layers add up (Figure 4), all in percent.

  Attributes:
    layers: 'stage/module', from the image to the answer.
    noise: standard deviation of the noise on each kernel, in units of the
      kernel's own.
    single: drop of the score with one layer perturbed.
    summed: sums of `single` up to each layer.
    together: drop with all layers up to each one perturbed.
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
  """Perturbs each convolution's kernel so that it alone costs a given drop.

  The noise of each layer is found by bisection on the mean drop over draws, in
  (0, 4) standard deviations of the kernel.

  Args:
    model: the trained network.
    sample: what it is measured on.
    drop: of the score, in (0, 1), that each layer alone is to cost.
    draws: of the noise, over which drops are means.
    halvings: of the bisection.
    seed: of the noise.

  Raises:
    UsageError: the drop is none, or there is no convolution.
  """
  if not 0 < drop < 1:
    raise UsageError(f'drop: {drop} is no share in (0, 1)')
  params = model.variables['params']
  order = [n for n in staged.stage_names(model.network) if n in params]
  paths = [
    (name, *(str(key.key) for key in path))
    for name in order
    for path, x in jax.tree_util.tree_leaves_with_path(params[name])
    if x.ndim == 4
  ]
  if not paths:
    raise UsageError('model: there is no convolution to perturb')
  clean = _score(model, sample)

  def cost(noise: Mapping[tuple[str, ...], float]) -> float:
    scores = [
      _score(_with_noise(model, noise, seed + draw), sample)
      for draw in range(draws)
    ]
    return clean - float(np.mean(scores))

  def tuned(path: tuple[str, ...]) -> float:
    low, high = 0.0, 4.0
    for _ in range(halvings):
      middle = (low + high) / 2
      low, high = (
        (middle, high) if cost({path: middle}) < drop else (low, middle)
      )
    return (low + high) / 2

  noise = {path: tuned(path) for path in paths}
  single = [100 * cost({path: noise[path]}) for path in paths]
  together = [
    100 * cost({path: noise[path] for path in paths[: i + 1]})
    for i in range(len(paths))
  ]
  return Accumulation(
    tuple('/'.join(path[:-1]) for path in paths),
    tuple(noise.values()),
    tuple(single),
    tuple(np.cumsum(single).tolist()),
    tuple(together),
  )


def draw_accumulation(found: Accumulation) -> figure.Figure:
  """Figure 4: bars of single drops, their sums, and the drops together."""
  drawn = figure.Figure(figsize=(5, 3.5), layout='constrained')
  axes = drawn.add_subplot()
  x = np.arange(1, len(found.layers) + 1)
  axes.bar(x, found.single, color='C7', label='each layer alone')
  axes.plot(x, found.summed, 'C0', label='their sum')
  axes.plot(x, found.together, 'k', label='all layers up to it')
  axes.set(xlabel='layer', ylabel='drop of accuracy (%)')
  axes.legend()
  return drawn


def _with_noise(
  model: Model, noise: Mapping[tuple[str, ...], float], seed: int
) -> Model:
  """The model with noise on some kernels; the same for a kernel and a seed."""
  params = model.variables['params']
  paths = [
    tuple(str(key.key) for key in path)
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]

  def shaken(path: Sequence[Any], x: Array) -> Array:
    name = tuple(str(key.key) for key in path)
    if name not in noise:
      return x
    rng = jax.random.fold_in(jax.random.key(seed), paths.index(name))
    size = noise[name] * x.std()
    return x + size * jax.random.normal(rng, x.shape, x.dtype)

  shaken_params = jax.tree_util.tree_map_with_path(shaken, params)
  return model._replace(variables={**model.variables, 'params': shaken_params})


def _score(model: Model, sample: Sample) -> float:
  found = evaluation.evaluate(
    model, sample.split, sample.task, sample.preprocess
  )
  return found[sample.task.score]


def _noisy_score(
  model: Model, sample: Sample, amplitudes: Mapping[str, Array], seed: int
) -> float:
  tree: dict[str, Any] = {
    'model': model.variables,
    'amplitudes': dict(amplitudes),
    'rng': jax.random.key(seed),
  }
  statistics = evaluation.over(
    _noisy_statistics, Model(model.network, tree), *sample
  )
  return sample.task.summarize(statistics)[sample.task.score]


def _noisy_statistics(
  network: Network,
  task: Task,
  preprocess: Callable[[Array, Batch], Batch],
  tree: dict[str, Any],
  batch: Batch,
) -> Any:
  batch = preprocess(jax.random.key(0), batch)
  # Batches differ in their noise by their first image.
  rng = jax.random.fold_in(tree['rng'], batch['index'][0])
  features = perturbed(
    network, tree['model'], batch['image'], tree['amplitudes'], rng
  )
  return task.statistics(features[staged.output(network)], batch)


def _point(x: float, values: Sequence[float]) -> curves.Point:
  sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
  return curves.Point(float(x), float(np.mean(values)), sd)
