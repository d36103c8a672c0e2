"""ROC curves, and pairs on which two models decide otherwise."""

import io

import numpy as np
import pytest

from jaxdistill.analysis import verification
from jaxdistill.core.checks import UsageError

RNG = np.random.default_rng(0)
LABEL = np.repeat(np.arange(10), 6)
SPLIT = {
  'image': RNG.integers(0, 256, (60, 4, 4, 1), np.uint8),
  'label': LABEL,
}


def embedding(noise):
  vectors = np.eye(10)[LABEL] + noise * RNG.normal(size=(60, 10))
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


STUDENT, BASELINE = embedding(0.3), embedding(0.5)


def accepted(vectors, far):
  """Which pairs a model accepts, and which are genuine."""
  first, second = np.triu_indices(60, 1)
  cosines = (vectors @ vectors.T)[first, second]
  genuine = LABEL[first] == LABEL[second]
  allowed = int(far * (~genuine).sum())
  highest = np.sort(cosines[~genuine])[::-1][allowed]
  return dict(zip(zip(first, second), zip(cosines > highest, genuine)))


@pytest.mark.parametrize('far', [0.01, 0.1])
def test_flips_are_the_pairs_that_one_model_decides_rightly(far):
  found = verification.flips(STUDENT, BASELINE, SPLIT, far=far)
  student, baseline = accepted(STUDENT, far), accepted(BASELINE, far)
  expected = {
    places: (genuine, is_accepted == genuine)
    for places, (is_accepted, genuine) in student.items()
    if is_accepted != baseline[places][0]
  }
  made = {(p.first, p.second): (p.genuine, p.is_gain) for p in found}
  assert made == expected
  assert len(made) > 20
  differences = [abs(p.student - p.baseline) for p in found]
  assert differences == sorted(differences, reverse=True)


def test_a_model_has_no_flips_against_itself():
  assert verification.flips(STUDENT, STUDENT, SPLIT) == []
  with pytest.raises(UsageError, match='the same images, got 60 and 59'):
    verification.flips(STUDENT, BASELINE[1:], SPLIT)
  with pytest.raises(UsageError, match=r'far: expected a number in \(0, 1\)'):
    verification.flips(STUDENT, BASELINE, SPLIT, far=1.0)


def test_curves_and_pairs_are_drawn():
  protocol = {**SPLIT, 'protocol': LABEL % 2}
  curves = {
    'student': verification.roc(STUDENT, protocol),
    'alone': verification.roc(BASELINE, SPLIT),
  }
  assert [len(splits) for splits in curves.values()] == [2, 1]
  drawing = verification.draw_roc(curves)
  (axes,) = drawing.axes
  assert [len(axes.lines), len(axes.collections)] == [2, 1]
  tar = axes.lines[0].get_ydata()
  assert (np.diff(tar) >= 0).all()
  assert tar[-1] == pytest.approx(100)
  pairs = verification.flips(STUDENT, BASELINE, SPLIT)
  drawing = verification.draw_flips(pairs, SPLIT, count=3)
  counts = [sum(p.is_gain is gain for p in pairs) for gain in (True, False)]
  assert len(drawing.axes) == sum(min(3, count) for count in counts)
  file = io.BytesIO()
  drawing.savefig(file, format='svg')
  assert b'<svg' in file.getvalue()
