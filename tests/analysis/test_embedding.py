"""Embeddings of features."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import embedding
from jaxdistill.data import augment
from jaxdistill.networks import layers, staged
from jaxdistill.types import Model, Network, Stage, UsageError

PREPROCESS = augment.standardize((128.0,), (64.0,))


@pytest.fixture(scope='module')
def split():
  """Three classes: dark, grey and bright images."""
  label = np.arange(60) % 3
  noise = np.random.default_rng(0).integers(0, 20, (60, 4, 4, 1))
  image = (noise + 100 * label[:, None, None, None]).astype(np.uint8)
  return {'image': image, 'label': label}


@pytest.fixture(scope='module')
def model():
  stages = (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))
  network = Network(stages)
  image = {'image': jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32)}
  return Model(network, staged.init(network, jax.random.key(0), image))


def test_classes_that_differ_lie_apart(model, split):
  points, label = embedding.tsne(
    model, split, 'head', PREPROCESS, per_class=15, perplexity=5.0
  )
  assert points.shape == (45, 2)
  centres = np.stack([points[label == c].mean(0) for c in range(3)])
  nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
  assert (nearest == label).mean() > 0.9
  made = embedding.draw({'a': (points, label), 'b': (points, label)})
  assert [axes.get_title() for axes in made.axes] == ['a', 'b']
  colors = {tuple(dots.get_facecolor()[0]) for dots in made.axes[0].collections}
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
    UsageError, match=r'perplexity: 99; there are 60 examples'
  ):
    embedding.tsne(model, split, 'head', PREPROCESS, perplexity=99)
