"""Data sets of folders of images and depths, as image files of equal names."""

from collections.abc import Sequence
import functools

from jaxdistill.core import checks
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import arrays, lazy_maps, mask_folder


def depth_folder(
  path: str,
  *,
  unit: float = 0.001,
  ignore: Sequence[int] = (),
  image_size: Sequence[int] | None = None,
  train_split: str = 'train',
  test_split: str | None = 'test',
  test: float = 0.2,
  validation: float = 0.1,
  train_subset: int | None = None,
  split_seed: int = 0,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  stream: bool | None = None,
) -> Dataset:
  """Returns the data set of a folder of images and their depths.

  The files are `path/train/images/NAME.jpg` with `path/train/depths/NAME.png`,
  and likewise for the test split; the endings may differ. Depths are images
  with one channel, usually PNG files of 16 bits. The level 0 stands for an
  unknown depth. The column 'depth' is float32 `[N, H, W]`, in metres.

  Args:
    path: the folder.
    unit: the metres of one level: 0.001 for files in millimetres, and 1 / 256
      for those of KITTI.
    ignore: levels that stand for an unknown depth too, such as 65535.
    image_size: the height and width in pixels to which images are resized,
      bilinear and antialiased, and depths, which take the nearest pixel. None:
      they keep their size, which must be the same for all.
    train_split: the folder of the training set; '.' is `path` itself.
    test_split: the folder of the test set. None: a part of the training set
      forms the test split.
    test: the fraction of the training set that then forms the test split.
    validation: the size of the validation split: a fraction of the training
      set, or a number of examples if above 1. 0: there is no such split.
    train_subset: the size of the split 'train_subset', which is a part of
      'train'; None: there is no such split.
    split_seed: chooses the examples of the validation split and the subset.
    mean: per channel in [0, 255]; None: computed from the training images.
    std: the standard deviation, likewise.
    stream: whether images and depths are decoded when they are needed instead
      of at once; None: if the images need more than 1 GiB.

  Raises:
    UsageError: a folder is missing, empty or that of both splits, an image has
      no depths or ones of another size, or a file cannot be read.
  """
  arrays.check_choices(validation, train_subset, split_seed, mean, std)
  checks.number('unit', unit, above=0)
  ignored = tuple(checks.integer('ignore', x, at_least=0) for x in ignore)
  splits = mask_folder.columns(
    path,
    (train_split, test_split),
    image_size,
    'depth',
    functools.partial(lazy_maps.LazyDepthImages, unit=unit, ignored=ignored),
    stream,
    test,
  )
  return arrays.from_columns(
    *splits,
    validation=validation,
    train_subset=train_subset,
    split_seed=split_seed,
    mean=mean,
    std=std,
  )
