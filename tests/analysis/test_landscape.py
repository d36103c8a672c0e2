"""Loss surfaces: the network in the centre, and normalised directions."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import landscape
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment
from jaxdistill.tasks import classification, evaluation

STANDARD = augment.standardize((128.0,), (64.0,))
TASK = classification()


@pytest.fixture(scope='module')
def split(dataset):
  return dataset.splits['train']


@pytest.fixture(scope='module')
def surface(student, split):
  return landscape.loss_surface(
    student, split, TASK, STANDARD, points=3, span=0.5, batch_size=12, chunk=4
  )


def test_the_loss_in_the_centre_is_that_of_the_network(surface, student, split):
  loss = evaluation.evaluate(student, split, TASK, STANDARD)['loss']
  np.testing.assert_allclose(surface.loss[1, 1], loss, rtol=1e-5)
  np.testing.assert_array_equal(surface.steps, [-0.5, 0, 0.5])
  assert len(np.unique(surface.loss.round(6))) == 9


def test_the_loss_elsewhere_is_that_of_the_moved_network(
  surface, student, split
):
  # Rows belong to the first direction, columns to the second.
  params = student.variables['params']
  both = landscape.directions(params, jax.random.key(0))
  for i, j in ((0, 2), (2, 1)):
    x, y = surface.steps[i], surface.steps[j]
    moved = jax.tree.map(
      lambda p, a, b, x=x, y=y: p + x * a + y * b, params, *both
    )
    model = Model(student.network, {**student.variables, 'params': moved})
    loss = evaluation.evaluate(model, split, TASK, STANDARD)['loss']
    np.testing.assert_allclose(surface.loss[i, j], loss, rtol=1e-4)


def test_the_filters_of_directions_have_the_norms_of_the_networks_filters(
  student,
):
  params = student.variables['params']
  first, second = landscape.directions(params, jax.random.key(1))
  leaves = jax.tree_util.tree_leaves_with_path(params)
  for (path, x), a, b in zip(leaves, *map(jax.tree.leaves, (first, second))):
    if path[-1].key != 'kernel':
      assert not np.any(a) and not np.any(b)
      continue
    norms = [
      np.linalg.norm(np.reshape(v, (-1, x.shape[-1])), axis=0)
      for v in (a, b, x)
    ]
    np.testing.assert_allclose(norms[0], norms[2], rtol=1e-5)
    np.testing.assert_allclose(norms[1], norms[2], rtol=1e-5)
    assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0


def test_networks_of_equal_shapes_have_the_same_directions(student):
  """Only the norms differ: a filter of twice the norm moves twice as far."""
  params = student.variables['params']
  double = jax.tree.map(lambda x: 2 * x, params)
  single_directions, double_directions = (
    landscape.directions(p, jax.random.key(0)) for p in (params, double)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-5),
    single_directions,
    double_directions,
  )


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'points': 4}, 'points: expected an odd number.*, got 4'),
    ({'points': 0}, 'points: .* got 0'),
    ({'span': 0.0}, r'span: expected a number above 0, got 0\.0'),
    ({'span': float('nan')}, 'span: .*, got nan'),
    ({'chunk': 0}, 'chunk: .* got 0'),
  ],
)
def test_wrong_grids_are_refused(options, words, student, split):
  with pytest.raises(UsageError, match=words):
    landscape.loss_surface(student, split, TASK, STANDARD, **options)


@pytest.mark.parametrize('kind', ['contour', '3d'])
def test_figures_have_a_panel_for_each_surface(kind, surface, tmp_path):
  titles = ['scratch 1', 'scratch 2', 'kd 1', 'kd 2']
  figure = landscape.draw(
    dict.fromkeys(titles, surface), columns=2, kind=kind, highest=5.0
  )
  assert [axes.get_title() for axes in figure.axes] == titles
  rows = {round(axes.get_position().y0, 3) for axes in figure.axes}
  figure.savefig(tmp_path / 'figure.png')
  assert len(rows) == 2


def test_an_unknown_kind_of_figure_is_refused(surface):
  with pytest.raises(UsageError, match="kind of figure 'bar'"):
    landscape.draw({'a': surface}, kind='bar')
