"""Which files of a folder are images, and of which class and split."""

import logging
import os
import pathlib
import socket

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import class_folders

RNG = np.random.default_rng(0)


def write(path, count=1):
  """Writes images into a folder, which may be given as bytes."""
  os.makedirs(path, exist_ok=True)
  for i in range(count):
    pixels = RNG.integers(0, 256, (3, 4, 3), np.uint8)
    name = f'{i:03d}.png'
    name = name.encode() if isinstance(path, bytes) else name
    with open(os.path.join(path, name), 'wb') as file:
      PIL.Image.fromarray(pixels).save(file, 'PNG')


def tree(root, *folders, count=3):
  """Writes images into `FOLDER/CLASS` for each folder and two classes."""
  for folder in folders:
    for name in ('ant', 'bee'):
      write(root / folder / name, count)


def load(root, **options):
  return jd.data.folder(str(root), **options)


def sizes(dataset):
  return {name: len(split['label']) for name, split in dataset.splits.items()}


@pytest.mark.parametrize(
  ('train', 'test'),
  [
    ('Train', 'Test'),
    ('TRAIN', 'VAL'),
    ('training', 'testing'),
    ('train_set', 'test_set'),
    ('Training Set', 'Test Set'),
    ('training-set', 'testing-set'),
    ('seg_train', 'seg_test'),
    ('train', 'dev'),
    ('train', 'valid'),
    ('training', 'validation'),
  ],
)
def test_splits_are_recognised_by_their_usual_names(train, test, tmp_path):
  tree(tmp_path, train, count=4)
  tree(tmp_path, test, count=2)
  dataset = load(tmp_path, validation=0)
  assert dataset.label_names == ('ant', 'bee')
  assert sizes(dataset) == {'train': 8, 'test': 4}


def test_test_is_preferred_to_validation_and_the_exact_name_to_others(tmp_path):
  tree(tmp_path, 'Train', count=1)
  tree(tmp_path, 'train', count=4)
  tree(tmp_path, 'val', count=2)
  tree(tmp_path, 'Testing', count=3)
  dataset = load(tmp_path, validation=0)
  assert sizes(dataset) == {'train': 8, 'test': 6}


def test_a_folder_without_classes_is_no_split(tmp_path):
  tree(tmp_path, 'train', 'val')
  write(tmp_path / 'test', 5)
  assert sizes(load(tmp_path, validation=0)) == {'train': 6, 'test': 6}


@pytest.mark.parametrize(
  'folders', [('a', 'b'), ('fold1', 'fold2', 'fold3'), ('test', 'val')]
)
def test_splits_with_unusual_names_are_refused_and_a_key_mends_it(
  folders, tmp_path
):
  tree(tmp_path, *folders)
  with pytest.raises(
    UsageError, match=r"data\.train_split: needed .*'ant' and 'bee'"
  ) as caught:
    load(tmp_path)
  assert '\n' not in str(caught.value)
  first, second = folders[:2]
  dataset = load(tmp_path, train_split=first, test_split=second)
  assert dataset.label_names == ('ant', 'bee')
  classes = load(tmp_path, train_split='.')
  assert classes.label_names == folders


def test_splits_beside_other_folders_or_classes_are_refused_too(tmp_path):
  tree(tmp_path / 'beside', 'tr', 'te')
  write(tmp_path / 'beside' / 'samples', 4)
  tree(tmp_path / 'mixed', 'held out', '.')
  for root in ('beside', 'mixed'):
    with pytest.raises(UsageError, match=r"data\.train_split: needed .*'ant'"):
      load(tmp_path / root)


def test_classes_may_each_have_one_folder_of_the_same_name(tmp_path):
  for name in ('ant', 'bee'):
    write(tmp_path / name / 'images', 5)
    (tmp_path / name / 'boxes.txt').write_text('text')
  assert load(tmp_path).label_names == ('ant', 'bee')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'train_split': 'trian'}, r"data\.train_split: no images in '.*trian'"),
    ({'test_split': 'tset'}, r"data\.test_split: no images in '.*tset'"),
    (
      {'train_split': '.', 'test_split': 'test'},
      "'test' is only in|same classes",
    ),
  ],
)
def test_a_split_that_does_not_exist_is_named(options, message, tmp_path):
  tree(tmp_path, 'train', 'test')
  with pytest.raises(UsageError, match=message):
    load(tmp_path, **options)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
  tree(tmp_path, 'training')
  write(tmp_path / 'rest', 3)
  with pytest.raises(
    UsageError, match=r'data\.train_split="\." if \'training\''
  ):
    load(tmp_path)
  dataset = load(tmp_path, train_split='.')
  assert dataset.label_names == ('rest', 'training')


def test_a_test_split_needs_a_training_split(tmp_path):
  tree(tmp_path, 'here', 'there')
  with pytest.raises(UsageError, match=r'data\.train_split: needed with'):
    load(tmp_path, test_split='there')


def test_files_that_are_no_images_are_ignored(tmp_path):
  tree(tmp_path, '.', count=5)
  for suffix in ('pdf', 'eps', 'h5', 'mpg', 'grib', 'wmf', 'palm', 'txt'):
    (tmp_path / 'ant' / f'x.{suffix}').write_bytes(b'%PDF or something else')
  assert sizes(load(tmp_path, validation=0)) == {'train': 8, 'test': 2}


def test_hidden_folders_are_not_entered(tmp_path):
  tree(tmp_path / '.hidden', '.', '.thumbnails', 'ant/.thumbnails')
  root = tmp_path / '.hidden'
  paths = class_folders.image_paths(root, {'.png'})
  names = {os.path.relpath(path, root) for path in paths}
  assert names == {
    f'{name}/{i:03d}.png' for name in ('ant', 'bee') for i in range(3)
  }


def test_folders_that_archives_of_macos_add_are_no_classes(tmp_path):
  tree(tmp_path, '.', count=5)
  (tmp_path / '__MACOSX').mkdir()
  (tmp_path / '__MACOSX' / '._000.png').write_bytes(b'no image')
  assert load(tmp_path).label_names == ('ant', 'bee')


def test_photographs_that_pillow_does_not_decode_are_counted(tmp_path, caplog):
  tree(tmp_path, '.', count=5)
  with caplog.at_level(logging.WARNING, 'absl'):
    load(tmp_path)
  assert not caplog.messages
  for name in ('a.HEIC', 'b.dng', '.c.heic'):
    (tmp_path / 'ant' / name).write_bytes(b'a photograph')
  for data in (jd.data.folder, jd.data.images):
    caplog.clear()
    with caplog.at_level(logging.WARNING, 'absl'):
      dataset = data(str(tmp_path), validation=0)
    assert sizes(dataset) == {'train': 8, 'test': 2}
    (message,) = caplog.messages
    assert message.startswith('left out 2 photographs in formats')
    assert 'a.HEIC' in message


@pytest.mark.parametrize(
  'name', [b'caf\xe9', b'\xff\xfe', b'x\x80y'], ids=['latin1', 'ff', 'x']
)
def test_names_that_are_not_utf8_work(name, tmp_path):
  root = os.fsencode(tmp_path) + b'/data\xe4'
  write(os.path.join(root, name), 5)
  write(os.path.join(root, b'ant'), 5)
  dataset = load(os.fsdecode(root), validation=0, stream=True)
  escaped = name.decode('utf-8', 'backslashreplace')
  assert set(dataset.label_names) == {'ant', escaped}
  assert ''.join(dataset.label_names).encode()
  assert dataset.splits['train']['image'][:].shape == (8, 3, 4, 3)
  bad = os.path.join(root, name, b'000.png')
  with open(bad, 'wb') as file:
    file.write(b'text')
  with pytest.raises(UsageError, match=r'1 of 10 files .*000\.png'):
    load(os.fsdecode(root))


def test_folders_behind_links_are_followed(tmp_path):
  """A class that is a link, a link in a class, and one out of the tree."""
  elsewhere, root = tmp_path / 'elsewhere', tmp_path / 'data'
  write(elsewhere / 'ant', 3)
  write(elsewhere / 'more', 4)
  write(root / 'bee', 5)
  (root / 'ant').symlink_to(elsewhere / 'ant')
  (root / 'bee' / 'more').symlink_to(elsewhere / 'more')
  (elsewhere / 'ant' / 'deep').mkdir()
  (elsewhere / 'ant' / 'deep' / 'more').symlink_to('../../more')
  split = class_folders.split(root, {'.png'}, 'data.path')
  assert np.bincount(split.label).tolist() == [3 + 4, 5 + 4]


def test_links_in_circles_end_and_nothing_is_counted_twice(tmp_path):
  tree(tmp_path / 'data', '.', count=5)
  ant = tmp_path / 'data' / 'ant'
  (ant / 'inner').mkdir()
  write(ant / 'inner', 2)
  (ant / 'itself').symlink_to(ant)
  (ant / 'parent').symlink_to('..')
  (ant / 'root').symlink_to('/')
  (ant / 'inner' / 'up').symlink_to(ant)
  (ant / 'again').symlink_to('inner')
  (ant / 'again2').symlink_to('inner')
  (ant / 'nowhere').symlink_to(tmp_path / 'missing')
  split = class_folders.split(tmp_path / 'data', {'.png'}, 'data.path')
  assert np.bincount(split.label).tolist() == [7, 5]


def test_a_class_behind_a_link_may_link_to_the_data_set(tmp_path):
  write(tmp_path / 'elsewhere', 3)
  write(tmp_path / 'data' / 'bee', 5)
  (tmp_path / 'data' / 'ant').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'data')
  split = class_folders.split(tmp_path / 'data', {'.png'}, 'data.path')
  assert np.bincount(split.label).tolist() == [3, 5]


def make_socket(path):
  with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(str(path))


@pytest.mark.parametrize(
  'make',
  [
    os.mkfifo,
    make_socket,
    lambda path: os.symlink('/dev/zero', path),
    lambda path: os.symlink('/nowhere/x.png', path),
    lambda path: pathlib.Path(path).write_bytes(b''),
  ],
  ids=['pipe', 'socket', 'device', 'dangling link', 'empty'],
)
def test_what_is_no_image_file_is_named_without_a_hang(
  make, tmp_path, monkeypatch
):
  tree(tmp_path, '.', count=5)
  monkeypatch.chdir(tmp_path)  # names of sockets are short
  make('ant/odd.png')
  with pytest.raises(UsageError, match=r'(odd|x)\.png') as caught:
    load('.')
  assert '\n' not in str(caught.value)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  tree(tmp_path, '.', count=5)
  (tmp_path / 'bee' / 'inner').mkdir()
  scandir = os.scandir

  def fail(path):
    if str(path).endswith('inner'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', fail)
  with pytest.raises(UsageError, match=r'data\.path: .*denied: .*inner'):
    load(tmp_path)


def test_images_are_turned_before_their_sizes_are_compared(tmp_path):
  tree(tmp_path, '.', count=4)
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  image = RNG.integers(0, 256, (4, 3, 3), np.uint8)
  path = tmp_path / 'ant' / 'turned.png'
  PIL.Image.fromarray(image).save(path, exif=exif)
  dataset = load(tmp_path, test=0.25, validation=0)
  images = np.concatenate([s['image'] for s in dataset.splits.values()])
  assert images.shape == (9, 3, 4, 3)
  assert any((np.rot90(image, -1) == x).all() for x in images)


@pytest.mark.parametrize('stream', [False, True])
def test_background_and_range_are_chosen_in_the_config(stream, tmp_path):
  for i, name in enumerate(('ant', 'bee')):
    (tmp_path / name).mkdir()
    grey = PIL.Image.fromarray(np.full((3, 4), 1000 * i, np.uint16))
    clear = PIL.Image.new('RGBA', (4, 3))
    for k in range(3):
      grey.save(tmp_path / name / f'grey{k}.png')
      clear.save(tmp_path / name / f'clear{k}.png')
  dataset = load(
    tmp_path, range=[0, 2000], background=[1, 2, 3], stream=stream, validation=0
  )
  split = dataset.splits['train']
  for image, label in zip(split['image'][:], split['label']):
    assert image[0, 0].tolist() in ([1, 2, 3], [128 * label] * 3)
  with pytest.raises(UsageError, match=r"data\.background 'grey'"):
    load(tmp_path, background='grey')
  with pytest.raises(UsageError, match=r'data\.range: expected two different'):
    load(tmp_path, range=[1])


def test_levels_without_a_range_are_refused_with_the_key_that_mends_it(
  tmp_path,
):
  for name in ('ant', 'bee'):
    (tmp_path / name).mkdir()
    for i in range(3):
      levels = np.full((3, 4), 200 + i, np.float32)
      PIL.Image.fromarray(levels).save(tmp_path / name / f'{i}.tif')
  with pytest.raises(
    UsageError, match=r'4 of 4 images .*expected levels .*`range`.*ant/\d\.tif'
  ):
    load(tmp_path, test=0.4)
  assert sizes(load(tmp_path, range=[0, 255], test=0.4))['test'] == 2
