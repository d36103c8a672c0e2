"""Data sets in one .npz file, as arrays or as encoded images.

The splits are 'train' and 'test'. Each has the keys '{split}_label' `[N]` and
'{split}_image' uint8 `[N, H, W, C]`. Instead of the latter there may be
'{split}_image_bytes', all image files one after the other, and
'{split}_image_offsets' `[N + 1]`. The key 'label_names' is optional.
"""

from collections.abc import Sequence
import itertools
import os
import zipfile

import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays, images


def npz(
  path: str,
  *,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Reads a .npz file; nothing in it is ever unpickled.

  Args:
    path: the file.
    num_classes: the number of classes; None: the length of 'label_names' if the
      file has this key, and the largest label plus one otherwise.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.

  Raises:
    UsageError: the file or one of its keys is missing or not valid.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  file = os.path.expanduser(path)
  if os.path.isfile(file) and not zipfile.is_zipfile(file):
    raise UsageError(f'data.path: expected a .npz file, got {path!r}')
  try:
    with np.load(file, allow_pickle=False) as pack:
      splits = [_read(pack, path, split) for split in ('train', 'test')]
      names = pack.get('label_names', ())
  except FileNotFoundError:
    raise UsageError(f'data.path: no file {path!r}') from None
  except (zipfile.BadZipFile, OSError, ValueError) as error:
    if isinstance(error, UsageError):
      raise
    raise UsageError(f'data.path: cannot read {path!r} ({error})') from None
  return arrays.from_arrays(
    *splits[0],
    *splits[1],
    num_classes=num_classes or len(names) or None,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=tuple(names),
  )


def _read(
  pack: np.lib.npyio.NpzFile, path: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (image, label) of a split."""
  if f'{split}_image' in pack:
    image = pack[f'{split}_image']
  elif f'{split}_image_bytes' in pack:
    if f'{split}_image_offsets' not in pack:
      raise _missing(pack, path, f'{split}_image_offsets')
    data = pack[f'{split}_image_bytes']
    offsets = pack[f'{split}_image_offsets']
    decoded = [
      images.decode(data[start:stop].tobytes())
      for start, stop in itertools.pairwise(offsets)
    ]
    if len({d.shape for d in decoded}) != 1:
      raise UsageError(
        f'{path}: expected images of one size, but those of {split!r} differ'
      )
    image = np.stack(decoded)
  else:
    raise _missing(pack, path, f'{split}_image', f'{split}_image_bytes')
  if image.dtype != np.uint8 or image.ndim != 4:
    raise UsageError(
      f'{path}, {split}_image: expected uint8 [N, H, W, C], got {image.dtype} '
      f'{list(image.shape)}'
    )
  if f'{split}_label' not in pack:
    raise _missing(pack, path, f'{split}_label')
  label = pack[f'{split}_label']
  if label.shape != (len(image),) or label.dtype.kind not in 'iu':
    raise UsageError(
      f'{path}, {split}_label: expected integers [{len(image)}], got '
      f'{label.dtype} {list(label.shape)}'
    )
  return image, label


def _missing(pack: np.lib.npyio.NpzFile, path: str, *keys: str) -> UsageError:
  """Returns the error for a file that has none of the keys."""
  return UsageError(
    f'{path}: expected a key {" or ".join(map(repr, keys))}, got '
    f'{", ".join(pack.files)}'
  )
