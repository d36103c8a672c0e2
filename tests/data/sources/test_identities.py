"""Data sets whose test images belong to other identities than the training."""

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data import from_identities, identities

Image = pytest.importorskip('PIL.Image')
PIXELS = np.random.default_rng(0).integers(0, 256, (400, 6, 8, 3), np.uint8)


def write(root, names, images=2, first=0):
  for i, name in enumerate(names):
    folder = root / name
    folder.mkdir(parents=True)
    for j in range(images):
      pixels = PIXELS[first + i * images + j]
      Image.fromarray(pixels).save(folder / f'{j}.png')


@pytest.fixture(scope='module')
def split_folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('faces')
  write(root / 'train', ['dora', 'anna', 'carl'])
  write(root / 'test', ['fred', 'bert'], first=100)
  return root


def names_of(dataset, split):
  return {*dataset.splits[split]['label'].tolist()}


def test_folders_of_splits_have_their_own_identities(split_folder):
  dataset = identities(str(split_folder), validation=0)
  assert dataset.label_names == ('anna', 'carl', 'dora')
  assert dataset.splits['train']['label'].tolist() == [0, 0, 1, 1, 2, 2]
  # The numbers continue in the order of the names.
  assert dataset.splits['test']['label'].tolist() == [3, 3, 4, 4]
  np.testing.assert_array_equal(dataset.splits['train']['image'][4], PIXELS[0])
  grey = identities(
    str(split_folder), validation=0, grey=True, image_size=4, stream=True
  )
  assert grey.splits['test']['image'].shape == (4, 4, 4, 1)
  assert len(grey.mean) == 1


def test_identities_and_not_images_are_held_out(tmp_path):
  write(tmp_path, [f'{i:02d}' for i in range(20)])
  dataset = identities(str(tmp_path), test=0.25, validation=0.2)
  sizes = {k: len(v['image']) for k, v in dataset.splits.items()}
  assert sizes == {'train': 24, 'test': 10, 'validation': 6}
  assert names_of(dataset, 'train') == set(range(12))
  assert names_of(dataset, 'validation') == {12, 13, 14}
  assert names_of(dataset, 'test') == set(range(15, 20))
  by_number = identities(str(tmp_path), test=5, validation=3)
  for split, columns in dataset.splits.items():
    for column, values in columns.items():
      np.testing.assert_array_equal(by_number.splits[split][column], values)
  other = identities(str(tmp_path), test=5, validation=3, split_seed=1)
  assert other.label_names != dataset.label_names


def test_a_table_lists_the_test_images_and_their_templates(tmp_path):
  write(tmp_path / 'train', ['anna', 'carl', 'dora'])
  write(tmp_path / 'other', ['x', 'y'])
  lines = [
    'file,identity,template,gallery,protocol',
    'other/x/0.png,ernst,1,1,1',
    'other/x/1.png,ernst,1,1,1',
    'other/y/0.png,gina,2,0,1',
    'other/x/0.png,ernst,1,0,2',
  ]
  (tmp_path / 'protocol.csv').write_text('\n'.join(lines))
  dataset = identities(str(tmp_path), table='protocol.csv', validation=0)
  test = dataset.splits['test']
  assert test['label'].tolist() == [3, 3, 4, 3]
  assert test['template'].tolist() == [1, 1, 2, 1]
  assert test['gallery'].tolist() == [1, 1, 0, 0]
  assert test['protocol'].tolist() == [1, 1, 1, 2]
  np.testing.assert_array_equal(test['image'][0], test['image'][3])
  for text, message in (
    ('file,name\na,b', 'columns file and identity in .*got file, name'),
    ('', 'got no lines'),
    ('file,identity\nother/z.png,a', "names '.*z.png', which is not a file"),
    (
      'file,identity,template\nother/x/0.png,a,first',
      'whole numbers in the column template',
    ),
  ):
    (tmp_path / 'protocol.csv').write_text(text)
    with pytest.raises(UsageError, match=f'data.table: .*{message}'):
      identities(str(tmp_path), table='protocol.csv')
  with pytest.raises(UsageError, match=r"data.table: no file 'none.csv'"):
    identities(str(tmp_path), table='none.csv')


def test_an_npz_file_has_identities_in_place_of_labels(tmp_path):
  path = tmp_path / 'faces.npz'
  columns = {
    'train_image': PIXELS[:8],
    'train_label': np.arange(8) // 2 + 10,
    'test_image': PIXELS[8:12],
    'test_label': np.array([3, 3, 20, 20]),
    'test_template': np.array([0, 0, 1, 2]),
  }
  np.savez(path, **columns)
  dataset = identities(str(path), validation=0)
  assert dataset.label_names == ('10', '11', '12', '13')
  assert dataset.splits['test']['label'].tolist() == [4, 4, 5, 5]
  assert dataset.splits['test']['template'].tolist() == [0, 0, 1, 2]
  # A shared identity keeps its number, and the task refuses it.
  np.savez(path, **{**columns, 'test_label': np.array([3, 3, 12, 12])})
  test = identities(str(path), validation=0).splits['test']
  assert test['label'].tolist() == [4, 4, 2, 2]
  with pytest.raises(UsageError, match=r'data.grey: expected a folder with it'):
    identities(str(path), grey=True)


TRAIN = {'image': PIXELS[:6], 'identity': np.arange(6) // 2}
TEST = {'image': PIXELS[6:8], 'identity': np.array([7, 8])}


@pytest.mark.parametrize(
  ('train', 'test', 'message'),
  [
    ({'identity': None}, {}, 'train: expected the columns image and identity'),
    ({}, {'identity': np.arange(3)}, r'test_identity: .*\[2\], one for each'),
    ({}, {'identity': np.ones(2)}, 'expected names or numbers .*got float64'),
    (
      {},
      {'template': np.array(['a', 'b'])},
      'test_template: expected integers',
    ),
    ({}, {'gallery': np.array([1, 2])}, 'test_gallery: expected .* got 2'),
    ({}, {'camera': np.arange(2)}, "unknown column of test 'camera'"),
    ({'gallery': np.arange(6)}, {}, "unknown column of train 'gallery'"),
    ({'identity': np.zeros(6, int)}, {}, 'at least two for training, got 1'),
  ],
)
def test_columns_that_make_no_data_set_are_refused(train, test, message):
  columns = [
    {k: v for k, v in {**split, **change}.items() if v is not None}
    for split, change in ((TRAIN, train), (TEST, test))
  ]
  with pytest.raises(UsageError, match=message):
    from_identities(*columns, validation=0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'validation': 3}, 'fewer than the 3 training identities, got 3'),
    ({'test': 3}, 'data.test: expected 1 to 2 of the 3 identities'),
    ({'test': 0}, 'data.test: expected a number above 0'),
    ({'image_size': 0}, 'data.image_size: expected a whole number'),
  ],
)
def test_a_split_that_is_too_large_is_refused(split_folder, options, message):
  path = split_folder / ('train' if 'test' in options else '.')
  with pytest.raises(UsageError, match=message):
    identities(str(path), **options)


def test_a_folder_of_training_images_alone_is_refused(tmp_path):
  write(tmp_path / 'train', ['anna', 'carl'])
  with pytest.raises(UsageError, match=r"beside 'train' in .* data.table"):
    identities(str(tmp_path))
  with pytest.raises(UsageError, match=r"data.path: no file 'nowhere'"):
    identities('nowhere')
