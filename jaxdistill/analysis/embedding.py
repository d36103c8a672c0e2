"""Features of a network in the plane, by t-SNE.

van der Maaten and Hinton, Visualizing Data using t-SNE, 2008,
https://www.jmlr.org/papers/v9/vandermaaten08a.html
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.analysis import figures
from jaxdistill.core import checks, optional
from jaxdistill.core.types import Array, Augment, Model, Variables
from jaxdistill.networks import graph

if TYPE_CHECKING:
  from matplotlib import figure


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
  """Embeds a feature of some examples of some classes in the plane.

  Args:
    model: the model; it is used in inference mode.
    split: {'image': uint8 `[N, H, W, C]`, 'label': `[N]`}.
    feature: the name of the feature; a map is flattened.
    preprocess: the preprocessing for evaluation (standardisation).
    num_classes: the number of classes. The seed chooses them and the examples.
    per_class: the largest number of examples of a class.
    perplexity: the perplexity of t-SNE, below the number of examples.
    seed: the seed of the choice and of t-SNE.

  Returns:
    (points `[M, 2]`, labels `[M]`).

  Raises:
    UsageError: the feature does not exist, there are too few examples, or
      scikit-learn is not installed.
  """
  manifold = optional.require('sklearn.manifold', 't-SNE')
  rng = np.random.default_rng(seed)
  label = np.asarray(split['label'])
  classes = rng.permutation(np.unique(label))[:num_classes]
  chosen = np.concatenate(
    [rng.permutation(np.flatnonzero(label == c))[:per_class] for c in classes]
  )
  checks.number('perplexity', perplexity, above=0, below=len(chosen))
  image = preprocess(
    jax.random.key(0), {'image': jnp.asarray(split['image'][chosen])}
  )['image']
  shapes = graph.shapes(model.network, {'image': image})
  checks.choice('feature', feature, shapes)

  @jax.jit
  def run(variables: Variables, image: Array) -> Array:
    features, _ = graph.run(model.network, variables, {'image': image})
    return features[feature]

  flat = np.asarray(run(model.variables, image)).reshape(len(chosen), -1)
  method = manifold.TSNE(perplexity=perplexity, random_state=seed, init='pca')
  return method.fit_transform(flat), label[chosen]


def draw(
  panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> 'figure.Figure':
  """Draws embeddings side by side, with one colour per class.

  Args:
    panels: title -> (points `[M, 2]`, labels `[M]`), from `tsne`.
  """
  drawing = figures.empty(3.5 * len(panels), 3.5)
  for i, (title, (points, label)) in enumerate(panels.items()):
    axes = drawing.add_subplot(1, len(panels), i + 1)
    for name in np.unique(label):
      x, y = points[label == name].T
      axes.scatter(x, y, s=8)
    axes.set(title=title, xticks=(), yticks=())
  return drawing
