"""Error rates of pairs and ranks, against plain references."""

import itertools

import numpy as np
import pytest

from jaxdistill.tasks import comparison


def directions(generator, count, size=3):
  # Few values, so that many similarities are equal.
  vectors = generator.integers(-1, 2, (count, size)).astype(np.float32)
  vectors[(vectors == 0).all(1)] = 1.0
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def columns(generator, kind):
  """Random images, templates, galleries and protocols."""
  label = generator.integers(0, 5, 40)
  if kind == 'images':
    return {'label': label}
  template = 10 * label + generator.integers(0, 3, 40)
  if kind == 'templates':
    return {'label': label, 'template': template}
  gallery = (template % 2).astype(int)
  made = {'label': label, 'template': template, 'gallery': gallery}
  if kind == 'protocol':
    made['protocol'] = generator.integers(0, 2, 40)
  return made


def reference(vectors, columns):
  """Returns the genuine and impostor cosines of each split, and its ranks."""
  label = columns['label']
  template = columns.get('template', np.arange(len(label)))
  protocol = columns.get('protocol', np.zeros(len(label), int))
  for split in sorted(set(protocol.tolist())):
    means, first = {}, {}
    for i in np.flatnonzero(protocol == split):
      means.setdefault(template[i], []).append(vectors[i].astype(float))
      first.setdefault(template[i], i)
    units = {}
    for t, parts in means.items():
      total = np.sum(parts, axis=0)
      length = np.linalg.norm(total)
      units[t] = total / length if length > 0 else total
    if 'gallery' in columns:
      gallery = {t for t in units if columns['gallery'][first[t]]}
      compared = [(a, b) for a in gallery for b in units if b not in gallery]
    else:
      earliest = {}
      for t in sorted(units, key=first.get):
        earliest.setdefault(label[first[t]], t)
      gallery = {*earliest.values()}
      compared = list(itertools.combinations(units, 2))
    genuine, impostor = [], []
    for a, b in compared:
      same = label[first[a]] == label[first[b]]
      (genuine if same else impostor).append(
        round(float(units[a] @ units[b]), 9)
      )
    above = []
    for probe in units:
      own = [t for t in gallery if label[first[t]] == label[first[probe]]]
      if probe in gallery or not own:
        continue
      best = max(round(float(units[probe] @ units[t]), 9) for t in own)
      others = [t for t in gallery if t not in own]
      above.append(
        sum(round(float(units[probe] @ units[t]), 9) >= best for t in others)
      )
    yield genuine, impostor, above


def tar_at(genuine, impostor, far):
  """Tries every threshold."""
  best = 0.0
  for threshold in [*genuine, *impostor]:
    if np.mean([x >= threshold for x in impostor]) <= far:
      best = max(best, np.mean([x >= threshold for x in genuine]))
  return best


@pytest.mark.parametrize('kind', ['images', 'templates', 'gallery', 'protocol'])
@pytest.mark.parametrize('seed', range(3))
def test_pairs_and_rates_are_those_of_a_plain_reference(kind, seed):
  generator = np.random.default_rng(seed)
  vectors, made = directions(generator, 40), columns(generator, kind)
  layouts = comparison.layouts(made)
  expected = list(reference(vectors, made))
  assert len(layouts) == len(expected) == (2 if kind == 'protocol' else 1)
  for layout, (genuine, impostor, above) in zip(layouts, expected):
    sizes = (len(genuine), len(impostor), len(above))
    assert comparison.counts(layout) == sizes
    pairs = comparison.pairs(vectors, layout)
    # Rounding makes equal similarities equal in both.
    pairs = pairs._replace(cosine=pairs.cosine.round(9))
    for same, values in ((True, genuine), (False, impostor)):
      cosines = pairs.cosine[pairs.genuine == same]
      np.testing.assert_allclose(sorted(cosines), sorted(values), atol=1e-8)
    curve = comparison.roc(pairs)
    for far in (0.0, 0.01, 0.1, 0.5, 1.0):
      assert comparison.acceptance(curve, far) == pytest.approx(
        tar_at(genuine, impostor, far)
      )


@pytest.mark.parametrize('kind', ['images', 'templates', 'gallery', 'protocol'])
def test_ranks_without_ties_are_those_of_a_plain_reference(kind):
  generator = np.random.default_rng(7)
  vectors = generator.normal(size=(40, 8)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  made = columns(generator, kind)
  for layout, (*_, above) in zip(
    comparison.layouts(made), reference(vectors, made)
  ):
    expected = [np.mean([a < k for a in above]) for k in (1, 2, 5)]
    assert comparison.rank_accuracies(vectors, layout, (1, 2, 5)) == (
      pytest.approx(expected)
    )


def test_equal_similarities_count_as_wrong():
  label = np.array([0, 0, 1, 1])
  layout = comparison.layouts({'label': label})[0]
  same = np.ones((4, 1))
  assert comparison.rank_accuracies(same, layout, (1, 2)) == [0.0, 1.0]
  curve = comparison.roc(comparison.pairs(same, layout))
  assert comparison.acceptance(curve, 0.5) == 0.0
  nothing = np.full((4, 1), np.nan)
  assert comparison.rank_accuracies(nothing, layout, (1,)) == [0.0]
  curve = comparison.roc(comparison.pairs(nothing, layout))
  assert comparison.acceptance(curve, 0.99) == 0.0


def test_a_rate_needs_ten_impostor_pairs_that_may_be_accepted():
  def suffices(identities, images, far):
    label = np.repeat(np.arange(identities), images)
    return comparison.suffices(comparison.layouts({'label': label})[0], far)

  assert suffices(12, 10, 0.01)  # 6,600 impostor pairs
  assert not suffices(12, 10, 0.001)
  assert not suffices(1, 100, 0.01)  # no impostors
  assert not suffices(100, 1, 0.01)  # no genuine pairs
  assert suffices(50, 3, 0.001)  # 11,025
  assert not suffices(2, 31, 0.01)  # 961, of which 9 may be accepted
