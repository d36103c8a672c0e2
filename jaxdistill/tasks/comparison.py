"""How well vectors tell identities apart: error rates of pairs, and ranks.

Vectors are compared by their cosine. A template is one image of an identity, or
several whose vectors are averaged. A genuine pair consists of two templates of
one identity, and an impostor pair of templates of two identities.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core import optional

# A false acceptance rate is reported if, rounded, at least this number of
# impostor pairs may be accepted at this rate.
FEWEST = 10


class Layout(NamedTuple):
  """How the images of one split of a protocol are compared.

  Attributes:
    rows: the rows of the data that belong to the split, `[n]`.
    member: the template of each of these rows, `[n]`, from 0.
    identity: the identity of each template, `[T]`.
    gallery: whether each template belongs to the gallery, booleans `[T]`.
    gallery_to_probes: whether each template of the gallery is paired with each
      probe. Otherwise, each template is paired with every other one.
  """

  rows: np.ndarray
  member: np.ndarray
  identity: np.ndarray
  gallery: np.ndarray
  gallery_to_probes: bool


class Pairs(NamedTuple):
  """Pairs of templates, and how similar they are.

  Attributes:
    first: the number of a template, `[P]`.
    second: the number of the other template, `[P]`.
    genuine: whether both belong to one identity, booleans `[P]`.
    cosine: the cosine of their vectors, `[P]`.
  """

  first: np.ndarray
  second: np.ndarray
  genuine: np.ndarray
  cosine: np.ndarray


class Roc(NamedTuple):
  """What is accepted as the threshold of the similarity falls.

  Attributes:
    far: the false acceptance rate, the fraction of the impostor pairs that are
      accepted, ascending, `[K]`.
    tar: the true acceptance rate, the fraction of the genuine pairs that are
      accepted, `[K]`.
    threshold: the smallest cosine that is accepted, `[K]`; the first one is
      infinite, so that no pair is accepted.
  """

  far: np.ndarray
  tar: np.ndarray
  threshold: np.ndarray


def layouts(columns: Mapping[str, Any]) -> list[Layout]:
  """Returns the layout of each split of the protocol.

  Args:
    columns: 'label' `[N]`, the identity of each image, and three optional
      columns of integers `[N]`. 'template': images with the same number form
      one template; without it, each image is a template. 'gallery': 1 for
      images of the gallery and 0 for those of probes; without it, the first
      template of each identity is the gallery. 'protocol': the number of the
      split; without it, there is one split.
  """
  label = np.asarray(columns['label'])
  template = np.asarray(columns.get('template', np.arange(len(label))))
  protocol = np.asarray(columns.get('protocol', np.zeros(len(label), int)))
  found = []
  for split in np.unique(protocol):
    rows = np.flatnonzero(protocol == split)
    _, first, member = np.unique(
      template[rows], return_index=True, return_inverse=True
    )
    identity = label[rows][first]
    if 'gallery' in columns:
      gallery = np.asarray(columns['gallery'])[rows][first] == 1
    else:
      gallery = np.zeros(len(first), bool)
      order = np.argsort(first, kind='stable')
      gallery[order[np.unique(identity[order], return_index=True)[1]]] = True
    found.append(Layout(rows, member, identity, gallery, 'gallery' in columns))
  return found


def counts(layout: Layout) -> tuple[int, int, int]:
  """Returns the numbers of genuine pairs, impostor pairs, and ranked probes.

  Args:
    layout: how the images are compared.
  """
  in_gallery, others = (
    dict(zip(*np.unique(layout.identity[chosen], return_counts=True)))
    for chosen in (layout.gallery, ~layout.gallery)
  )
  ranked = int(sum(n for i, n in others.items() if i in in_gallery))
  if layout.gallery_to_probes:
    total = int(layout.gallery.sum() * (~layout.gallery).sum())
    genuine = int(sum(n * in_gallery.get(i, 0) for i, n in others.items()))
  else:
    _, sizes = np.unique(layout.identity, return_counts=True)
    genuine = int((sizes * (sizes - 1) // 2).sum())
    total = len(layout.identity) * (len(layout.identity) - 1) // 2
  return genuine, total - genuine, ranked


def suffices(layout: Layout, far: float) -> bool:
  """Returns whether a split has enough pairs for a false acceptance rate.

  Args:
    layout: how the images are compared.
    far: the rate.
  """
  genuine, impostor, _ = counts(layout)
  # The small number is more than the rounding of the product.
  return genuine > 0 and far * impostor + 1e-6 >= FEWEST


def templates(embedding: np.ndarray, layout: Layout) -> np.ndarray:
  """Returns the directions of the templates, `[T, D]`, in float64.

  Args:
    embedding: the vectors of all images, of length 1, `[N, D]`.
    layout: how the images are compared.
  """
  vectors = np.asarray(embedding, np.float64)[layout.rows]
  sums = np.zeros((len(layout.identity), vectors.shape[1]))
  np.add.at(sums, layout.member, vectors)
  length = np.linalg.norm(sums, axis=1, keepdims=True)
  return sums / np.where(length > 0, length, 1.0)


def pairs(embedding: np.ndarray, layout: Layout) -> Pairs:
  """Returns all pairs that a split compares.

  All of them are in memory at the same time.

  Args:
    embedding: the vectors of all images, of length 1, `[N, D]`.
    layout: how the images are compared.
  """
  if layout.gallery_to_probes:
    chosen = np.flatnonzero(layout.gallery), np.flatnonzero(~layout.gallery)
    first, second = (x.ravel() for x in np.meshgrid(*chosen, indexing='ij'))
  else:
    first, second = np.triu_indices(len(layout.identity), 1)
  vectors = templates(embedding, layout)
  cosine = (vectors @ vectors.T)[first, second]
  genuine = layout.identity[first] == layout.identity[second]
  # NaN counts as wrong: such a genuine pair is never accepted, and such an
  # impostor pair always.
  cosine = np.where(np.isnan(cosine), np.where(genuine, -2.0, 2.0), cosine)
  return Pairs(first, second, genuine, cosine)


def roc(pairs: Pairs) -> Roc:
  """Returns the curve of true against false acceptances.

  It is the curve of scikit-learn, with a point for each different cosine.

  Args:
    pairs: at least one genuine and one impostor pair.

  Raises:
    UsageError: scikit-learn is not installed.
  """
  metrics: Any = optional.require('sklearn.metrics', 'verification')
  return Roc(
    *metrics.roc_curve(pairs.genuine, pairs.cosine, drop_intermediate=False)
  )


def position(roc: Roc, far: float) -> int:
  """Returns the position on a curve of the largest TAR whose FAR is allowed.

  Args:
    roc: the curve.
    far: the largest false acceptance rate.
  """
  return int(np.searchsorted(roc.far, far, side='right')) - 1


def acceptance(roc: Roc, far: float) -> float:
  """Returns the largest TAR whose FAR is at most a given rate.

  Args:
    roc: the curve.
    far: the largest false acceptance rate.
  """
  return float(roc.tar[position(roc, far)])


def rank_accuracies(
  embedding: np.ndarray, layout: Layout, ranks: Iterable[int]
) -> list[float]:
  """Returns the fraction of probes that are recognised, for each rank.

  The gallery has templates of the probe's own identity and of others. A probe
  is recognised at rank k if fewer than k templates of others are at least as
  similar to it as the most similar template of its own identity. Probes whose
  identity is not in the gallery do not count.

  Args:
    embedding: the vectors of all images, of length 1, `[N, D]`.
    layout: how the images are compared; at least one probe counts.
    ranks: the ranks.
  """
  vectors, identity = templates(embedding, layout), layout.identity
  gallery = layout.gallery
  probes = ~gallery & np.isin(identity, identity[gallery])
  cosines = vectors[probes] @ vectors[gallery].T
  same = identity[probes][:, None] == identity[gallery]
  own = np.where(same, cosines, -np.inf).max(1, keepdims=True)
  above = (~same & ~(cosines < own)).sum(1)
  return [float((above < rank).mean()) for rank in ranks]
