"""Data sets of Hugging Face: parquet files and saved folders."""

import io
import json

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import huggingface

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4, 3), np.uint8)
LABELS = np.arange(12) % 3
NAMES = ['ant', 'bee', 'cat']
FEATURES = {
  'photo': {'_type': 'Image'},
  'kind': {'_type': 'ClassLabel', 'names': NAMES},
}


def encoded(images):
  """Each image as Hugging Face stores it."""
  structs = []
  for image in images:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, 'PNG')
    structs.append({'bytes': file.getvalue(), 'path': None})
  return structs


def table(rows=slice(None), features=FEATURES, **columns):
  """A table of images and labels, with the metadata of its features."""
  content = {'photo': encoded(IMAGES[rows]), 'kind': LABELS[rows], **columns}
  made = pa.table({k: v for k, v in content.items() if v is not None})
  if features is None:
    return made
  metadata = {'huggingface': json.dumps({'info': {'features': features}})}
  return made.replace_schema_metadata(metadata)


def check(dataset):
  """The first 8 images train, the others are the test split."""
  assert dataset.label_names == tuple(NAMES)
  for split, rows in (('train', slice(8)), ('test', slice(8, None))):
    np.testing.assert_array_equal(dataset.splits[split]['image'], IMAGES[rows])
    np.testing.assert_array_equal(dataset.splits[split]['label'], LABELS[rows])


@pytest.mark.parametrize('test_split', ['test', 'validation'])
def test_the_splits_of_parquet_files_are_in_their_names(test_split, tmp_path):
  (tmp_path / 'data').mkdir()
  names = ('train-00000-of-00001', f'{test_split}-00000-of-00001')
  for name, rows in zip(names, (slice(8), slice(8, None))):
    pq.write_table(table(rows), tmp_path / 'data' / f'{name}.parquet')
  check(huggingface.huggingface(str(tmp_path), validation=0))


def test_parts_of_a_split_are_joined_in_order(tmp_path):
  for i, rows in enumerate((slice(4), slice(4, 8))):
    pq.write_table(table(rows), tmp_path / f'train-0000{i}-of-00002.parquet')
  pq.write_table(table(slice(8, None)), tmp_path / 'test-0.parquet')
  check(huggingface.huggingface(str(tmp_path), validation=0))


def test_a_folder_of_save_to_disk_is_read(tmp_path):
  for split, rows in (('train', slice(8)), ('test', slice(8, None))):
    folder = tmp_path / split
    folder.mkdir()
    name = 'data-00000-of-00001.arrow'
    made = table(rows)
    with (
      pa.OSFile(str(folder / name), 'wb') as sink,
      pyarrow.ipc.new_stream(sink, made.schema) as writer,
    ):
      writer.write_table(made)
    state = {'_data_files': [{'filename': name}]}
    (folder / 'state.json').write_text(json.dumps(state))
  check(huggingface.huggingface(str(tmp_path), validation=0))


def test_one_file_is_cut_into_training_and_test_images(tmp_path):
  pq.write_table(table(), tmp_path / 'a.parquet')
  dataset = huggingface.huggingface(
    str(tmp_path / 'a.parquet'), test=0.25, validation=0
  )
  assert np.bincount(dataset.splits['test']['label']).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
  'labels',
  [
    np.array(NAMES)[LABELS].tolist(),  # names
    (10 * LABELS + 5).tolist(),  # numbers with gaps
    None,
  ],
)
def test_columns_without_metadata_are_found_by_their_usual_names(
  labels, tmp_path
):
  made = table(
    features=None,
    photo=None,
    kind=None,
    image=[struct['bytes'] for struct in encoded(IMAGES)],
    label=labels,
  )
  pq.write_table(made, tmp_path / 'a.parquet')
  train, test = huggingface.read(str(tmp_path / 'a.parquet'), test=0.25)
  assert len(train.encoded) == 9 and len(test.encoded) == 3
  if labels is None:
    assert train.names == () and not train.label.any()
  else:
    assert np.bincount(train.label).tolist() == [3, 3, 3]


def test_hidden_labels_of_a_test_split_are_not_used(tmp_path):
  pq.write_table(table(slice(8)), tmp_path / 'train.parquet')
  hidden = table(slice(8, None), kind=np.full(4, -1))
  pq.write_table(hidden, tmp_path / 'test.parquet')
  _, test = huggingface.read(str(tmp_path))
  assert (test.label >= 0).all() and len(test.encoded) < 4


def test_labels_can_be_left_out(tmp_path):
  pq.write_table(table(), tmp_path / 'a.parquet')
  dataset = huggingface.huggingface(str(tmp_path), label='none', validation=0)
  assert dataset.num_classes == 0 and dataset.label_names == ()
  assert all('label' not in split for split in dataset.splits.values())


TWO = {**FEATURES, 'fine': {'_type': 'ClassLabel', 'names': NAMES}}
WRONG = {
  'no image': (table(photo=None), {}, ['data.image', 'kind']),
  'other columns': (table(), {'label': 'knd'}, ["'kind'"]),
  'two labels': (
    table(features=TWO, fine=LABELS),
    {},
    ['data.label', 'kind, fine'],
  ),
  'text': (
    table(photo=['a'] * 12),
    {},
    ['data.image', 'encoded images', 'str'],
  ),
  'damage': (
    table(photo=[{'bytes': b'abc', 'path': None}] * 12),
    {},
    ['image 0', 'cannot'],
  ),
  'missing file': (
    table(photo=[{'bytes': None, 'path': '/no/where.png'}] * 12),
    {},
    ['/no/where.png'],
  ),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_is_no_image_data_set_is_refused_in_one_line(name, tmp_path):
  made, options, parts = WRONG[name]
  pq.write_table(made, tmp_path / 'a.parquet')
  with pytest.raises(UsageError) as error:
    huggingface.huggingface(str(tmp_path / 'a.parquet'), **options)
  assert '\n' not in str(error.value)
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize(
  ('path', 'part'),
  [
    ('no/such/folder/here', 'no file or folder'),
    ('my data', 'no file or folder'),
    ('.', 'parquet'),
  ],
)
def test_a_path_without_a_data_set_is_refused(
  path, part, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UsageError, match=part):
    huggingface.huggingface(path)


def test_a_damaged_file_is_refused(tmp_path):
  (tmp_path / 'a.parquet').write_bytes(b'PAR1 not really')
  with pytest.raises(UsageError, match=r'data\.path: cannot read'):
    huggingface.huggingface(str(tmp_path))


def test_a_name_of_the_hub_needs_its_package(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
  with pytest.raises(UsageError, match=r'pip install huggingface_hub'):
    huggingface.huggingface('someone/some_images')
