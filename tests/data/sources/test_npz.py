"""Data sets in .npz files: both forms are equal, errors are rejected."""

import io
import logging
import os
import pathlib
import pickle
import struct

import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import npz

RNG = np.random.default_rng(0)
GOOD = {
  'train_image': RNG.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
  'train_label': np.arange(12) % 3,
  'test_image': RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
  'test_label': np.arange(6) % 3,
}


def encoded(images) -> dict[str, np.ndarray]:
  """Returns PNG files, one after the other, and their offsets."""
  blobs = []
  for image in images:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, 'PNG')
    blobs.append(file.getvalue())
  return {
    'bytes': np.frombuffer(b''.join(blobs), np.uint8),
    'offsets': np.cumsum([0, *map(len, blobs)]),
  }


def written(tmp_path, **changes):
  """Writes GOOD with some keys replaced; None removes a key."""
  content = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
  path = tmp_path / 'x.npz'
  np.savez(path, **content)
  return str(path)


def test_arrays_are_read_as_they_were_written(tmp_path):
  dataset = npz.npz(written(tmp_path), validation=0)
  assert dataset.num_classes == 3
  for split in ('train', 'test'):
    for key in ('image', 'label'):
      column = dataset.splits[split][key]
      np.testing.assert_array_equal(column, GOOD[f'{split}_{key}'])


def test_a_validation_split_in_the_file_is_not_left_out_silently(
  tmp_path, caplog
):
  with caplog.at_level(logging.WARNING, 'absl'):
    npz.npz(written(tmp_path))
    assert not caplog.messages
    npz.npz(written(tmp_path, val_image=GOOD['test_image']))
  (message,) = caplog.messages
  assert 'left out val_image;' in message


def test_encoded_images_equal_arrays(tmp_path):
  changes = {}
  for split in ('train', 'test'):
    changes[f'{split}_image'] = None
    for key, value in encoded(GOOD[f'{split}_image']).items():
      changes[f'{split}_image_{key}'] = value
  dataset = npz.npz(written(tmp_path, **changes), train_subset=3, split_seed=2)
  expected = npz.npz(written(tmp_path), train_subset=3, split_seed=2)
  assert dataset._replace(splits={}) == expected._replace(splits={})
  assert set(dataset.splits) == {'train', 'validation', 'train_subset', 'test'}
  for split, columns in expected.splits.items():
    for key, value in columns.items():
      np.testing.assert_array_equal(dataset.splits[split][key], value)


@pytest.mark.parametrize('values', [[1, 2, 3], [0, 40, 90], [5, 2**40, 2**41]])
def test_labels_with_gaps_need_names_or_the_number_of_classes(values, tmp_path):
  changes = {
    f'{split}_label': np.array(values)[GOOD[f'{split}_label']]
    for split in ('train', 'test')
  }
  with pytest.raises(UsageError, match=r'every class .* 3 different labels'):
    npz.npz(written(tmp_path, **changes))
  named = npz.npz(
    written(tmp_path, **changes, label_names=np.array(['a', 'b', 'c'])),
    validation=0,
  )
  assert named.num_classes == 3
  for split in ('train', 'test'):
    np.testing.assert_array_equal(
      named.splits[split]['label'], GOOD[f'{split}_label']
    )
  if max(values) < 100:
    kept = npz.npz(written(tmp_path, **changes), num_classes=91)
    assert kept.num_classes == 91
    assert set(kept.splits['test']['label']) == {*values}


def test_one_class_is_refused(tmp_path):
  changes = {f'{s}_label': 0 * GOOD[f'{s}_label'] for s in ('train', 'test')}
  with pytest.raises(UsageError, match='expected at least two classes'):
    npz.npz(written(tmp_path, **changes))


def test_channels_may_come_first(tmp_path):
  large = {
    f'{s}_image': RNG.integers(0, 256, (n, 6, 7, 3), np.uint8)
    for s, n in (('train', 12), ('test', 6))
  }
  first = {k: v.transpose(0, 3, 1, 2) for k, v in large.items()}
  dataset = npz.npz(written(tmp_path, **first), validation=0)
  np.testing.assert_array_equal(
    dataset.splits['train']['image'], large['train_image']
  )


def test_names_of_bytes_are_decoded(tmp_path):
  names = np.array(['ant', 'bée', 'cat'])
  for stored in (names, np.char.encode(names, 'utf-8')):
    dataset = npz.npz(written(tmp_path, label_names=stored))
    assert dataset.label_names == ('ant', 'bée', 'cat')


@pytest.mark.parametrize(
  'names', [np.array('ant'), np.array(b'ant'), np.array([['a', 'b', 'c']])]
)
def test_names_that_are_no_list_are_rejected(names, tmp_path):
  with pytest.raises(
    UsageError, match='label_names: expected one name for each'
  ):
    npz.npz(written(tmp_path, label_names=names))


def test_label_names_determine_the_number_of_classes(tmp_path):
  names = np.array(['ant', 'bee', 'cat', 'dog'])
  dataset = npz.npz(written(tmp_path, label_names=names))
  assert dataset.label_names == ('ant', 'bee', 'cat', 'dog')
  assert dataset.num_classes == 4
  assert npz.npz(written(tmp_path), num_classes=8).num_classes == 8


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
  written(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert npz.npz('~/x.npz').num_classes == 3


class Trap:
  """An object that writes a file when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return (open, (self._path, 'w'))


@pytest.mark.parametrize('key', ['train_image', 'train_label', 'label_names'])
def test_pickled_objects_are_rejected_and_never_unpickled(key, tmp_path):
  trap = Trap(tmp_path / 'sprung')
  assert pickle.dumps(trap)
  array = np.empty(12, object)
  array[:] = [trap] * 12
  with pytest.raises(UsageError, match=r'cannot read .*pickle'):
    npz.npz(written(tmp_path, **{key: array}))
  assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train_image': None}, r"a key 'train_image' or .*, got train_label,"),
    ({'test_image': None}, r"a key 'test_image'"),
    ({'test_label': None}, r"a key 'test_label'"),
    (
      {'train_image': GOOD['train_image'] / 255.0},
      r'train_image: expected uint8 .*, got float64 \[12, 5, 4, 3\]',
    ),
    (
      {'train_image': GOOD['train_image'][..., 0]},
      r'train_image: .* got uint8 \[12, 5, 4\]',
    ),
    (
      {'train_label': GOOD['train_label'] * 1.0},
      r'train_label: expected integers \[12\], got float64',
    ),
    (
      {'train_label': GOOD['train_label'][:-1]},
      r'train_label: expected integers \[12\], got int64 \[11\]',
    ),
    (
      {'label_names': np.array(['ant', 'bee'])},
      'labels: .* from 0 to 1, got 0 to 2',
    ),
  ],
)
def test_the_error_of_a_wrong_key_says_what_was_expected(
  changes, message, tmp_path
):
  with pytest.raises(UsageError, match=message):
    npz.npz(written(tmp_path, **changes))


def of_encoded(images, **changes) -> dict[str, np.ndarray | None]:
  content = {f'train_image_{k}': v for k, v in encoded(images).items()}
  return {'train_image': None, **content, **changes}


def test_encoded_images_of_different_sizes_are_rejected(tmp_path):
  images = [*GOOD['train_image'][:11], GOOD['train_image'][0, :4]]
  with pytest.raises(
    UsageError, match="images of one size, but those of 'train' differ"
  ):
    npz.npz(written(tmp_path, **of_encoded(images)))


def test_encoded_images_without_offsets_are_rejected(tmp_path):
  changes = of_encoded(GOOD['train_image'], train_image_offsets=None)
  with pytest.raises(UsageError, match="a key 'train_image_offsets'"):
    npz.npz(written(tmp_path, **changes))


def test_bytes_that_are_not_images_are_rejected(tmp_path):
  noise = np.arange(24, dtype=np.uint8)
  changes = of_encoded(
    GOOD['train_image'],
    train_image_bytes=noise,
    train_image_offsets=np.arange(0, 25, 2),
  )
  with pytest.raises(UsageError, match='cannot read'):
    npz.npz(written(tmp_path, **changes))


def test_the_error_of_a_missing_file_names_it(tmp_path):
  with pytest.raises(UsageError, match=r'no file .*nowhere\.npz'):
    npz.npz(str(tmp_path / 'nowhere.npz'))


@pytest.mark.parametrize('content', [b'', b'something else', b'PK\x03\x04'])
def test_a_file_of_another_kind_is_rejected(content, tmp_path):
  path = tmp_path / 'x.npz'
  path.write_bytes(content)
  with pytest.raises(
    UsageError, match=r'expected a \.npz file, got .*x\.np[yz]'
  ):
    npz.npz(str(path))


def test_a_single_array_instead_of_a_file_of_arrays_is_rejected(tmp_path):
  np.save(tmp_path / 'x.npy', GOOD['train_image'])
  with pytest.raises(
    UsageError, match=r'expected a \.npz file, got .*x\.np[yz]'
  ):
    npz.npz(str(tmp_path / 'x.npy'))


def test_a_truncated_file_is_rejected(tmp_path):
  path = tmp_path / 'x.npz'
  content = pathlib.Path(written(tmp_path)).read_bytes()
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(
    UsageError, match=r'expected a \.npz file, got .*x\.np[yz]'
  ):
    npz.npz(str(path))


def test_a_damaged_array_is_rejected(tmp_path):
  path = pathlib.Path(written(tmp_path))
  content = bytearray(path.read_bytes())
  content[400] ^= 1  # a pixel of the first image
  path.write_bytes(content)
  with pytest.raises(UsageError, match=r'cannot read .*CRC'):
    npz.npz(str(path))


def changed_member(tmp_path, change) -> str:
  """Writes a file whose first member has other facts in both its headers."""
  path = pathlib.Path(written(tmp_path))
  content = bytearray(path.read_bytes())
  central = content.index(b'PK\1\2')
  change(content, 0, central)
  path.write_bytes(content)
  return str(path)


def with_another_method(content, local, central):
  struct.pack_into('<H', content, local + 8, 97)
  struct.pack_into('<H', content, central + 10, 97)


def encrypted(content, local, central):
  struct.pack_into('<H', content, local + 6, 1)
  struct.pack_into('<H', content, central + 8, 1)


def deflated_only_by_name(content, local, central):
  struct.pack_into('<H', content, local + 8, 8)
  struct.pack_into('<H', content, central + 10, 8)


def longer_than_the_file(content, local, central):
  for offset in (20, 24):
    struct.pack_into('<I', content, central + offset, 1 << 30)


def shorter_than_the_array(content, local, central):
  for offset in (20, 24):
    struct.pack_into('<I', content, central + offset, 130)


def of_a_huge_shape(content, local, central):
  place = content.index(b"'shape': (12,")
  content[place : place + 13] = b"'shape': (9**"


@pytest.mark.parametrize(
  'change',
  [
    with_another_method,
    encrypted,
    deflated_only_by_name,
    longer_than_the_file,
    shorter_than_the_array,
    of_a_huge_shape,
  ],
)
def test_members_that_lie_about_themselves_are_rejected_in_one_line(
  change, tmp_path
):
  with pytest.raises(UsageError, match=r'cannot read .*x\.npz') as caught:
    npz.npz(changed_member(tmp_path, change))
  assert '\n' not in str(caught.value)


def test_random_damage_never_raises_anything_else(tmp_path):
  path = pathlib.Path(written(tmp_path))
  good = np.frombuffer(path.read_bytes(), np.uint8)
  rng = np.random.default_rng(2)
  for _ in range(100):
    content = good.copy()
    content[rng.integers(0, len(good), 4)] = rng.integers(0, 256, 4)
    path.write_bytes(content.tobytes())
    try:
      npz.npz(str(path))
    except UsageError as error:
      assert '\n' not in str(error)


@pytest.mark.parametrize(
  'make', [os.mkfifo, os.mkdir, lambda path: os.symlink('/dev/zero', path)]
)
def test_what_is_no_regular_file_is_never_opened(make, tmp_path):
  make(tmp_path / 'x.npz')
  with pytest.raises(UsageError, match=r'expected a \.npz file'):
    npz.npz(str(tmp_path / 'x.npz'))


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('offsets', np.arange(13) * 1.5, 'offsets: expected integers'),
    ('offsets', np.arange(13)[::-1].copy(), 'ascending offsets from 0 to'),
    ('offsets', np.arange(13) - 1, 'ascending offsets from 0 to'),
    ('offsets', np.arange(13) << 40, 'ascending offsets from 0 to'),
    ('offsets', np.array(3), r'offsets: expected integers \[N \+ 1\]'),
    ('bytes', np.zeros((2, 9)), r'bytes: expected uint8 \[n\]'),
    ('bytes', np.zeros(1 << 14, np.uint8), "cannot read image 0 of 'train'"),
  ],
)
def test_wrong_offsets_and_bytes_are_rejected(key, value, message, tmp_path):
  changes = of_encoded(GOOD['train_image'])
  changes[f'train_image_{key}'] = value
  with pytest.raises(UsageError, match=message):
    npz.npz(written(tmp_path, **changes))


def test_statistics_can_be_chosen(tmp_path):
  dataset = npz.npz(written(tmp_path), mean=(1, 2, 3), std=(4, 5, 6))
  assert (dataset.mean, dataset.std) == ((1, 2, 3), (4, 5, 6))
