"""Embeddings of features by t-SNE."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import embedding
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers

PREPROCESS = augment.standardize((128.0,), (64.0,))


@pytest.fixture(scope='module')
def split():
  """Images of three classes: dark, grey and bright ones."""
  label = np.arange(60) % 3
  noise = np.random.default_rng(0).integers(0, 20, (60, 4, 4, 1))
  image = (noise + 100 * label[:, None, None, None]).astype(np.uint8)
  return {'image': image, 'label': label}


@pytest.fixture(scope='module')
def model():
  stages = (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))
  network = Network(stages)
  image = {'image': jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32)}
  return Model(network, graph.init(network, jax.random.key(0), image))


def test_different_classes_are_embedded_apart(model, split):
  points, label = embedding.tsne(
    model, split, 'head', PREPROCESS, per_class=15, perplexity=5.0
  )
  assert points.shape == (45, 2)
  centres = np.stack([points[label == c].mean(0) for c in range(3)])
  nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
  assert (nearest == label).mean() > 0.9
  figure = embedding.draw({'a': (points, label), 'b': (points, label)})
  assert [axes.get_title() for axes in figure.axes] == ['a', 'b']
  dots = figure.axes[0].collections
  colors = {tuple(scatter.get_facecolor()[0]) for scatter in dots}
  assert len(colors) == 3


def test_the_seed_chooses_the_classes(model, split):
  chosen = set()
  for seed in range(4):
    _, label = embedding.tsne(
      model,
      split,
      'head',
      PREPROCESS,
      num_classes=2,
      per_class=5,
      perplexity=3.0,
      seed=seed,
    )
    chosen.add(tuple(np.unique(label)))
  assert len(chosen) > 1
  assert {len(classes) for classes in chosen} == {2}


def test_wrong_choices_are_named(model, split):
  with pytest.raises(UsageError, match="feature 'group1'"):
    embedding.tsne(model, split, 'group1', PREPROCESS)
  with pytest.raises(
    UsageError, match=r'perplexity: expected a number in \(0, 60\), got 99'
  ):
    embedding.tsne(model, split, 'head', PREPROCESS, perplexity=99)
