"""Data sets in one .npz file, as arrays or as encoded images.

The splits are 'train' and 'test'. Each has the keys '{split}_label' `[N]` and
'{split}_image' uint8 `[N, H, W, C]`. Instead of the latter there may be
'{split}_image_bytes', all image files one after the other, and
'{split}_image_offsets' `[N + 1]`. The key 'label_names' is optional.

Data for other tasks than classification have other targets instead of labels:
'{split}_mask', '{split}_depth', or '{split}_boxes' with '{split}_classes'; see
`data.transforms.geometry`.
"""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
import os
import zipfile

from absl import logging
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays, decoding, labels

SPLITS = ('train', 'test')
# The columns that other tasks than classification read.
TARGETS = ('mask', 'depth', 'boxes', 'classes')


def npz(
  path: str,
  *,
  num_classes: int | None = None,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  stratified: bool = True,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Reads a .npz file; nothing in it is ever unpickled.

  Images with the channels first are transposed, see `from_arrays`. Labels that
  have gaps or do not begin at 0 are renumbered if the file has exactly one of
  'label_names' for each of them.

  Args:
    path: the file.
    num_classes: the number of classes; None: the length of 'label_names' if the
      file has this key. Otherwise, each label from 0 to the largest one must
      occur; data with masks need one of both.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    stratified: see `from_arrays`.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.

  Raises:
    UsageError: the file or one of its keys is missing or not valid.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  with opened(path) as pack:
    if unread := [name for name in pack if name.startswith(('val_', 'valid'))]:
      logging.warning(
        '%r: left out %s; the validation split is a part of the training set, '
        'see data.validation',
        *(path, ', '.join(unread)),
      )
    names: tuple[str, ...] = ()
    if 'label_names' in pack:
      key = f'{path}, label_names'
      names = labels.checked_names(key, pack['label_names'])
    if targets := [t for t in TARGETS if f'train_{t}' in pack]:
      columns = [_columns(pack, path, split, targets) for split in SPLITS]
      return arrays.from_columns(
        *columns,
        num_classes=num_classes or 0,
        validation=validation,
        train_subset=train_subset,
        split_seed=split_seed,
        mean=mean,
        std=std,
        label_names=names,
      )
    splits = [read(pack, path, split) for split in SPLITS]
  (train_image, train_label), (test_image, test_label) = splits
  train_label, test_label = labels.renumbered(
    train_label, test_label, num_classes, names
  )
  return arrays.from_arrays(
    train_image,
    train_label,
    test_image,
    test_label,
    num_classes=num_classes,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    stratified=stratified,
    mean=mean,
    std=std,
    label_names=names,
  )


@contextlib.contextmanager
def opened(path: str) -> Iterator[np.lib.npyio.NpzFile]:
  """Opens a .npz file; damage becomes a UsageError in one line.

  Args:
    path: the file.
  """
  file = os.path.expanduser(path)
  if not os.path.exists(file):
    raise UsageError(f'data.path: no file {path!r}')
  # Opening a pipe or a device may block forever.
  if not os.path.isfile(file) or not zipfile.is_zipfile(file):
    raise UsageError(f'data.path: expected a .npz file, got {path!r}')
  try:
    with np.load(file, allow_pickle=False) as pack:
      # A member that claims more than there is would be read unchecked.
      for member in pack.zip.infolist():
        if member.compress_size > os.path.getsize(file):
          raise ValueError(f'{member.filename!r} is larger than the file')
      yield pack
  except UsageError:
    raise
  except Exception as error:  # damage may raise anything
    raise UsageError(
      f'data.path: cannot read {path!r} ({checks.reason(error)})'
    ) from None


def _columns(
  pack: np.lib.npyio.NpzFile, path: str, split: str, targets: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the images and the targets of a split."""
  columns = {'image': _images(pack, path, split)}
  for target in targets:
    key = f'{split}_{target}'
    if key not in pack:
      raise _missing(pack, path, key)
    columns[target] = pack[key]
  return columns


def _images(pack: np.lib.npyio.NpzFile, path: str, split: str) -> np.ndarray:
  """Returns the images of a split, `[N, H, W, C]`."""
  if f'{split}_image' in pack:
    image = pack[f'{split}_image']
  elif f'{split}_image_bytes' in pack:
    image = _decoded(pack, path, split)
  else:
    raise _missing(pack, path, f'{split}_image', f'{split}_image_bytes')
  if image.dtype != np.uint8 or image.ndim != 4:
    raise UsageError(
      f'{path}, {split}_image: expected uint8 [N, H, W, C], got {image.dtype} '
      f'{list(image.shape)}'
    )
  return image


def read(
  pack: np.lib.npyio.NpzFile, path: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (image, label) of a split.

  Args:
    pack: the file.
    path: its path, for messages.
    split: 'train' or 'test'.

  Raises:
    UsageError: a key is missing or not valid.
  """
  image = _images(pack, path, split)
  if f'{split}_label' not in pack:
    raise _missing(pack, path, f'{split}_label')
  label = pack[f'{split}_label']
  if label.shape != (len(image),) or label.dtype.kind not in 'iu':
    raise UsageError(
      f'{path}, {split}_label: expected integers [{len(image)}], got '
      f'{label.dtype} {list(label.shape)}'
    )
  return image, label


def _decoded(pack: np.lib.npyio.NpzFile, path: str, split: str) -> np.ndarray:
  """Returns the images `[N, H, W, 3]` of a split of encoded images."""
  key = f'{split}_image_offsets'
  if key not in pack:
    raise _missing(pack, path, key)
  data, offsets = pack[f'{split}_image_bytes'], pack[key]
  if data.dtype != np.uint8 or data.ndim != 1:
    raise UsageError(
      f'{path}, {split}_image_bytes: expected uint8 [n], got {data.dtype} '
      f'{list(data.shape)}'
    )
  if offsets.dtype.kind not in 'iu' or offsets.ndim != 1 or len(offsets) < 2:
    raise UsageError(
      f'{path}, {key}: expected integers [N + 1], got {offsets.dtype} '
      f'{list(offsets.shape)}'
    )
  ends = offsets.tolist()
  if ends != sorted(ends) or ends[0] < 0 or ends[-1] > len(data):
    raise UsageError(
      f'{path}, {key}: expected ascending offsets from 0 to {len(data)}, the '
      f'number of bytes, got {ends[0]} to {ends[-1]}'
    )
  decoded: list[np.ndarray] = []
  for i, (start, stop) in enumerate(itertools.pairwise(ends)):
    try:
      decoded.append(decoding.decode(data[start:stop].tobytes()))
    except OSError as error:
      raise UsageError(
        f'{path}: cannot read image {i} of {split!r}: {checks.reason(error)}'
      ) from None
    if decoded[i].shape != decoded[0].shape:
      raise UsageError(
        f'{path}: expected images of one size, but those of {split!r} differ, '
        f'for example images 0 and {i}'
      )
  return np.stack(decoded)


def _missing(pack: np.lib.npyio.NpzFile, path: str, *keys: str) -> UsageError:
  """Returns the error for a file that has none of the keys."""
  return UsageError(
    f'{path}: expected a key {" or ".join(map(repr, keys))}, got '
    f'{", ".join(pack.files)}'
  )
