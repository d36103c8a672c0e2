"""Data sets in one .npz file, as arrays or as encoded images.

Keys: '{split}_image' uint8 `[N, H, W, C]`, or '{split}_image_bytes' (all files
one behind the other) and '{split}_image_offsets' `[N + 1]`; '{split}_label'
`[N]`; optionally 'label_names'. Splits: 'train' and 'test'.
"""

from collections.abc import Sequence
import itertools
import os
import zipfile

import numpy as np

from jaxdistill.data import arrays, images
from jaxdistill.types import Dataset, UsageError


def npz(
  path: str,
  *,
  num_classes: int | None = None,
  validation: float = 0.1,
  few: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Reads a .npz file; nothing in it is ever unpickled.

  Args:
    path: the file.
    num_classes: None: as many as 'label_names', or the largest label plus one.
    validation: see `arrays.from_arrays`.
    few: see `arrays.from_arrays`; so are the rest.
    split_seed: which examples those splits take.
    mean: per channel.
    std: per channel.

  Raises:
    UsageError: the file or one of its keys is missing or of a wrong kind.
  """
  arrays.check_choices(validation, few, split_seed, mean, std)
  file = os.path.expanduser(path)
  if os.path.isfile(file) and not zipfile.is_zipfile(file):
    raise UsageError(f'data.path: {path!r} is no .npz file')
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
    few=few,
    split_seed=split_seed,
    mean=mean,
    std=std,
    label_names=tuple(names),
  )


def _read(
  pack: np.lib.npyio.NpzFile, path: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """One split as (image, label)."""
  if f'{split}_image' in pack:
    image = pack[f'{split}_image']
  elif f'{split}_image_bytes' in pack:
    if f'{split}_image_offsets' not in pack:
      raise UsageError(f"{path}: no key '{split}_image_offsets'")
    data = pack[f'{split}_image_bytes']
    offsets = pack[f'{split}_image_offsets']
    decoded = [
      images.decode(data[start:stop].tobytes())
      for start, stop in itertools.pairwise(offsets)
    ]
    if len({d.shape for d in decoded}) != 1:
      raise UsageError(f'{path}: the images of {split!r} differ in size')
    image = np.stack(decoded)
  else:
    raise UsageError(
      f"{path}: no key '{split}_image' or '{split}_image_bytes'; it has "
      f'{", ".join(pack.files)}'
    )
  if image.dtype != np.uint8 or image.ndim != 4:
    raise UsageError(
      f"{path}: '{split}_image' is {image.dtype} of shape {image.shape}; "
      'wanted: uint8 [N, H, W, C]'
    )
  if f'{split}_label' not in pack:
    raise UsageError(f"{path}: no key '{split}_label'")
  label = pack[f'{split}_label']
  if label.shape != (len(image),) or label.dtype.kind not in 'iu':
    raise UsageError(
      f"{path}: '{split}_label' is {label.dtype} of shape {label.shape}; "
      f'wanted: integers [{len(image)}]'
    )
  return image, label
