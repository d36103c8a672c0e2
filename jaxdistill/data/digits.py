"""The 1,797 hand-written digits of scikit-learn, 8x8, one channel.

The test set of Alpaydin and Kaynak, Optical Recognition of Handwritten Digits,
1998, https://archive.ics.uci.edu/dataset/80.
"""

from collections.abc import Sequence

import numpy as np

from jaxdistill.data import arrays
from jaxdistill.types import Dataset


def digits(
  *,
  num_test: int = 597,
  validation: float = 200,
  few: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Digits 0 to 9 as uint8 `[N, 8, 8, 1]`; the test split is always the same.

  Args:
    num_test: size of the test split.
    validation: see `arrays.from_arrays`.
    few: see `arrays.from_arrays`; so are the rest.
    split_seed: which examples those splits take.
    mean: per channel.
    std: per channel.
  """
  from sklearn import datasets  # takes a second, and few need it

  pack = datasets.load_digits()
  image = np.round(pack.images[..., None] * (255 / 16)).astype(np.uint8)
  order = np.random.default_rng(1797).permutation(len(image))
  image, label = image[order], pack.target[order]
  return arrays.from_arrays(
    image[num_test:],
    label[num_test:],
    image[:num_test],
    label[:num_test],
    num_classes=10,
    validation=validation,
    few=few,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=[str(n) for n in range(10)],
  )
