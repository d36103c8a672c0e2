"""The 1,797 hand-written digits of scikit-learn, 8x8, one channel.

They are the test set of Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits, 1998, https://archive.ics.uci.edu/dataset/80.
"""

from collections.abc import Sequence
import importlib.util
import pathlib

import numpy as np

from jaxdistill.core import optional
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays

# Each row of scikit-learn's file holds 64 grey levels, 0 to 16, and the label.
_FILE = pathlib.PurePath('datasets', 'data', 'digits.csv.gz')
_SHAPE = (1797, 65)


def digits(
  *,
  num_test: int = 597,
  validation: float = 200,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = False,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Returns the digits 0 to 9 as uint8 `[N, 8, 8, 1]`.

  Args:
    num_test: the size of the test split, which is always the same.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    stratified: see `from_arrays`. False by default, because the published
      results of this library were measured with splits drawn without regard to
      the classes.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.

  Raises:
    UsageError: scikit-learn is not installed, or the data does not have the
      requested number of examples.
  """
  pixels, label = _load()
  image = np.round(pixels[..., None] * (255 / 16)).astype(np.uint8)
  order = np.random.default_rng(1797).permutation(len(image))
  image, label = image[order], label[order]
  return arrays.from_arrays(
    image[num_test:],
    label[num_test:],
    image[:num_test],
    label[:num_test],
    num_classes=10,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    label_names=[str(n) for n in range(10)],
  )


def _load() -> tuple[np.ndarray, np.ndarray]:
  """Returns grey levels `[N, 8, 8]` in [0, 16] and labels `[N]`."""
  table = _read_file()
  if table is not None:
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
  datasets = optional.require('sklearn.datasets', "the data set 'digits'")
  bunch = datasets.load_digits()
  return bunch.images, bunch.target


def _read_file() -> np.ndarray | None:
  """Reads scikit-learn's file without importing scikit-learn.

  The import takes seconds, the file 60 ms.

  Returns:
    The table `[1797, 65]`, or None if the installed version of scikit-learn
    keeps its data elsewhere or is missing.
  """
  spec = importlib.util.find_spec('sklearn')
  for root in (spec and spec.submodule_search_locations) or ():
    try:
      table = np.loadtxt(pathlib.Path(root, _FILE), delimiter=',')
    except (OSError, ValueError):
      continue
    if table.shape == _SHAPE:
      return table
  return None
