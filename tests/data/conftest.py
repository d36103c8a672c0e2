"""Small data sets that are prepared by TFDS itself."""

import io
import pathlib

import numpy as np
import PIL.Image
import pytest


def png(array: np.ndarray) -> bytes:
  """Encodes an image as a PNG file, which keeps every pixel."""
  file = io.BytesIO()
  PIL.Image.fromarray(np.squeeze(array)).save(file, 'PNG')
  return file.getvalue()


def prepared(
  data_dir: pathlib.Path,
  name: str,
  features: dict,
  splits: dict,
  *,
  version: str = '1.0.0',
  config: str | None = None,
  **info,
) -> None:
  """Writes a data set with TFDS.

  Args:
    data_dir: the folder of prepared data sets.
    name: the name of the data set.
    features: name -> feature of TFDS.
    splits: name -> list of examples.
    version: the version of the data set.
    config: the name of its only config; None: it has none.
    **info: further arguments of `DatasetInfo`.
  """
  import tensorflow_datasets

  core = tensorflow_datasets.core

  def info_of(self):
    return core.DatasetInfo(
      builder=self,
      features=tensorflow_datasets.features.FeaturesDict(features),
      **info,
    )

  content = {
    'VERSION': core.Version(version),
    'name': name,
    '_info': info_of,
    '_split_generators': lambda self, manager: {
      split: iter(enumerate(examples)) for split, examples in splits.items()
    },
    '_generate_examples': lambda self: None,
    '__module__': '__main__',
  }
  if config is not None:
    content['BUILDER_CONFIGS'] = [core.BuilderConfig(name=config)]
  with core.registered.skip_registration():
    kind = type(name.title(), (core.GeneratorBasedBuilder,), content)
    kind(data_dir=data_dir, file_format='array_record').download_and_prepare()


@pytest.fixture(scope='session')
def write_tfds():
  """The function `prepared`, for tests that write data sets of their own."""
  return prepared


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory) -> pathlib.Path:
  """A folder with the data sets 'tiny', 'grey', 'sizes', 'text' and 'secret'.

  'tiny' has 40 training, 8 validation and 12 test images of 3 classes, some
  of them grey or with a palette.
  """
  from tensorflow_datasets import features

  folder = tmp_path_factory.mktemp('tfds')
  rng = np.random.default_rng(0)

  def images(count, *shape):
    return rng.integers(0, 256, (count, *shape), np.uint8)

  def examples(encoded, first=0, **more):
    return [
      {'image': io.BytesIO(e), 'label': (i + first) % 3, **more}
      for i, e in enumerate(encoded)
    ]

  names = features.ClassLabel(names=['ant', 'bee', 'cat'])
  image = features.Image(shape=(6, 5, 3))
  train = [png(x) for x in images(38, 6, 5, 3)]
  # Two images that have to be converted to RGB: a palette and a grey image.
  palette = PIL.Image.fromarray(images(1, 6, 5, 3)[0]).quantize(16)
  file = io.BytesIO()
  palette.save(file, 'PNG')
  train += [file.getvalue(), png(images(1, 6, 5)[0])]
  prepared(
    folder,
    'tiny',
    {'image': image, 'label': names, 'id': features.Text()},
    {
      'train': examples(train, id='x'),
      'validation': examples([png(x) for x in images(8, 6, 5, 3)], id='x'),
      'test': examples([png(x) for x in images(12, 6, 5, 3)], 1, id='x'),
    },
    supervised_keys=('image', 'label'),
  )
  grey = [png(x) for x in images(20, 4, 4)]
  prepared(
    folder,
    'grey',
    {'image': features.Image(shape=(4, 4, 1)), 'label': names},
    {'train': examples(grey[:12]), 'validation': examples(grey[12:])},
  )
  prepared(
    folder,
    'sizes',
    {'image': features.Image(), 'label': names},
    {
      'train': examples([png(x) for n in (5, 9) for x in images(6, n, 7, 3)]),
      'test': examples([png(x) for x in images(6, 8, 7, 3)]),
    },
  )
  prepared(
    folder,
    'text',
    {'image': image, 'text': features.Text()},
    {'train': [{'image': io.BytesIO(train[0]), 'text': 'x'}]},
  )
  unlabelled = examples([png(x) for x in images(4, 6, 5, 3)])
  prepared(
    folder,
    'secret',
    {'image': image, 'label': names},
    {
      'train': examples([png(x) for x in images(9, 6, 5, 3)]),
      'test': [{**x, 'label': -1} for x in unlabelled],
    },
  )
  return folder


def record(encoded, *entries, **more):
  """An example; an entry is (ymin, xmin, ymax, xmax), label and flags."""
  from tensorflow_datasets import features

  objects = [
    {'bbox': features.BBox(*box), 'label': label, **flags}
    for box, label, flags in entries
  ]
  return {'image': io.BytesIO(encoded), 'objects': objects, **more}


@pytest.fixture(scope='session')
def boxes_dir(tmp_path_factory):
  """A folder with the data sets 'tiny_voc', 'tiny_coco', 'turned', 'plain'."""
  from tensorflow_datasets import features

  folder = tmp_path_factory.mktemp('tfds_boxes')
  rng = np.random.default_rng(0)
  label = features.ClassLabel(names=['cat', 'dog', 'cow'])
  box = features.BBoxFeature()
  plain = {'is_difficult': False}
  whole = ((0.0, 0.0, 1.0, 1.0), 1, plain)
  small, wide = (
    png(rng.integers(1, 256, (*size, 3), np.uint8))
    for size in ((12, 16), (16, 32))
  )
  prepared(
    folder,
    'tiny_voc',
    {
      'image': features.Image(),
      'objects': features.Sequence(
        {'bbox': box, 'label': label, 'is_difficult': np.bool_}
      ),
      'labels': features.Sequence(label),
    },
    {
      'train': [
        record(
          small,
          ((0.25, 0.5, 0.75, 1.0), 2, plain),
          ((0.0, 0.0, 0.5, 0.25), 0, {'is_difficult': True}),
          labels=[0, 2],
        ),
        record(wide, whole, labels=[1]),
        record(wide, labels=[]),
      ],
      'test': [record(small, whole, labels=[1])],
    },
  )
  crowd = {'is_crowd': True, 'area': 99}
  prepared(
    folder,
    'tiny_coco',
    {
      'image': features.Image(),
      'image/id': np.int64,
      'objects': features.Sequence(
        {'bbox': box, 'label': label, 'is_crowd': np.bool_, 'area': np.int64}
      ),
    },
    {
      'train': [record(small, (whole[0], 0, crowd), **{'image/id': 139})],
      'validation': [record(wide, (whole[0], 2, crowd), **{'image/id': 42})],
      'test': [record(wide, **{'image/id': 5})],  # as of a challenge
    },
  )
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  turned = io.BytesIO()
  PIL.Image.new('RGB', (16, 12)).save(turned, 'JPEG', exif=exif)
  objects = features.Sequence({'bbox': box, 'label': label})
  prepared(
    folder,
    'turned',
    {'image': features.Image(), 'objects': objects},
    {'train': [record(turned.getvalue())], 'test': [record(small)]},
  )
  prepared(
    folder,
    'plain',
    {'image': features.Image(), 'label': label},
    {'train': [{'image': io.BytesIO(small), 'label': 0}]},
  )
  return folder
