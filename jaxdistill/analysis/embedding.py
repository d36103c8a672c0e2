"""Features of a network in the plane, by t-SNE.

van der Maaten and Hinton, Visualizing Data using t-SNE, 2008,
https://www.jmlr.org/papers/v9/vandermaaten08a.html
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib import figure
import numpy as np

from jaxdistill.networks import staged
from jaxdistill.types import Array, Augment, Model, UsageError, Variables


def tsne(
  model: Model,
  split: Mapping[str, Any],
  feature: str,
  preprocess: Augment,
  *,
  num_classes: int = 10,
  per_class: int = 50,
  perplexity: float = 30.0,
  seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Embeds a feature of some examples of some classes.

  Args:
    model: the model, in inference mode.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}.
    feature: its name; a map is flattened.
    preprocess: what stands in for augmentation (standardisation).
    num_classes: how many, chosen by the seed, as are the examples.
    per_class: at most so many examples of each.
    perplexity: of t-SNE.
    seed: of the choice and of t-SNE.

  Returns:
    (points `[M, 2]`, labels `[M]`).

  Raises:
    UsageError: there is no such feature, or too few examples.
  """
  from sklearn import manifold  # takes a second, and few need it

  rng = np.random.default_rng(seed)
  label = np.asarray(split['label'])
  present = np.unique(label)
  classes = rng.permutation(present)[:num_classes]
  chosen = np.concatenate(
    [rng.permutation(np.flatnonzero(label == c))[:per_class] for c in classes]
  )
  if len(chosen) <= perplexity:
    raise UsageError(
      f'perplexity: {perplexity}; there are {len(chosen)} examples: it must be '
      'below their number'
    )
  image = preprocess(
    jax.random.key(0), {'image': jnp.asarray(split['image'][chosen])}
  )['image']
  valid = staged.shapes(model.network, {'image': image})
  if feature not in valid:
    raise staged.unknown('feature', feature, valid)

  @jax.jit
  def run(variables: Variables, image: Array) -> Array:
    features, _ = staged.run(model.network, variables, {'image': image})
    return features[feature]

  flat = np.asarray(run(model.variables, image)).reshape(len(chosen), -1)
  made = manifold.TSNE(perplexity=perplexity, random_state=seed, init='pca')
  return made.fit_transform(flat), label[chosen]


def draw(
  panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> figure.Figure:
  """Embeddings side by side, a colour for each class.

  Args:
    panels: title -> (points `[M, 2]`, labels `[M]`).
  """
  drawn = figure.Figure(figsize=(3.5 * len(panels), 3.5), layout='constrained')
  for i, (title, (where, label)) in enumerate(panels.items()):
    axes = drawn.add_subplot(1, len(panels), i + 1)
    for name in np.unique(label):
      x, y = where[label == name].T
      axes.scatter(x, y, s=8)
    axes.set(title=title, xticks=(), yticks=())
  return drawn
