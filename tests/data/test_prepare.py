"""Preparing CIFAR from small archives of the published form."""

import functools
import hashlib
import http.server
import io
import pathlib
import sys
import tarfile
import threading

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data import prepare
from jaxdistill.data.sources import tfds

CIFAR10 = {
  'prefix': 'cifar-10-batches-bin/',
  'train': [f'data_batch_{i}.bin' for i in range(1, 6)],
  'test': ['test_batch.bin'],
  'labels': {'batches.meta.txt': 10},
}
CIFAR100 = {
  'prefix': 'cifar-100-binary/',
  'train': ['train.bin'],
  'test': ['test.bin'],
  'labels': {'coarse_label_names.txt': 20, 'fine_label_names.txt': 100},
}


def archive(form, count=3, extra=()) -> tuple[bytes, dict]:
  """Returns a small archive and {split: (images, labels)}.

  Args:
    form: the names of the files, see `CIFAR10`.
    count: the number of examples per file.
    extra: the names of additional members.
  """
  rng = np.random.default_rng(0)
  file, content = io.BytesIO(), {}
  with tarfile.open(fileobj=file, mode='w:gz') as pack:

    def add(name, data):
      member = tarfile.TarInfo(name)
      member.size = len(data)
      pack.addfile(member, io.BytesIO(data))

    for name in extra:
      add(name, b'outside')
    for name, classes in form['labels'].items():
      lines = '\n'.join(f'class {i}' for i in range(classes))
      add(form['prefix'] + name, f'{lines}\n\n'.encode())
    for split in ('train', 'test'):
      images, labels = [], []
      for name in form[split]:
        image = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
        label = np.stack(
          [rng.integers(0, n, count) for n in form['labels'].values()], 1
        ).astype(np.uint8)
        rows = np.concatenate([label, image.reshape(count, -1)], 1)
        add(form['prefix'] + name, rows.tobytes())
        images.append(image.transpose(0, 2, 3, 1))
        labels.append(label[:, -1])
      content[split] = np.concatenate(images), np.concatenate(labels)
  return file.getvalue(), content


class Quiet(http.server.SimpleHTTPRequestHandler):
  """Does not log requests."""

  def log_message(self, *args):
    pass


@pytest.fixture
def served(tmp_path):
  """A function that serves bytes on this machine: bytes -> (url, SHA-256)."""
  folder = tmp_path / 'served'
  folder.mkdir()
  handler = functools.partial(Quiet, directory=str(folder))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def serve(content: bytes) -> tuple[str, str]:
      (folder / 'x.tar.gz').write_bytes(content)
      url = f'http://127.0.0.1:{server.server_port}/x.tar.gz'
      return url, hashlib.sha256(content).hexdigest()

    yield serve
    server.shutdown()
    thread.join()


@pytest.mark.parametrize(
  ('name', 'form', 'classes'),
  [('cifar10', CIFAR10, 10), ('cifar100', CIFAR100, 100)],
)
def test_a_prepared_data_set_is_read_by_tfds(
  name, form, classes, served, tmp_path
):
  content, splits = archive(form)
  url, checksum = served(content)
  data_dir = str(tmp_path / 'data')
  counts = prepare.prepare(name, data_dir, url=url, sha256=checksum)
  assert counts == {k: len(label) for k, (_, label) in splits.items()}
  dataset = tfds.tfds(name, data_dir=data_dir, validation=0)
  assert dataset.num_classes == classes
  assert dataset.label_names[:2] == ('class 0', 'class 1')
  for split, (image, label) in splits.items():
    columns = dataset.splits[split]
    positions = {x.tobytes(): i for i, x in enumerate(image)}
    order = [positions[x.tobytes()] for x in columns['image']]
    assert sorted(order) == list(range(len(label)))
    np.testing.assert_array_equal(columns['label'], label[order])
  assert 'tensorflow' not in sys.modules


def test_a_prepared_data_set_is_not_downloaded_again(served, tmp_path):
  url, checksum = served(archive(CIFAR100)[0])
  for address in (url, 'http://127.0.0.1:1/nowhere'):
    counts = prepare.prepare(
      'cifar100', str(tmp_path / 'data'), url=address, sha256=checksum
    )
    assert counts == {'train': 3, 'test': 3}


def test_an_archive_with_another_checksum_is_rejected(served, tmp_path):
  url, _ = served(archive(CIFAR10)[0])
  published = 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'
  with pytest.raises(UsageError, match=rf'SHA-256 {published}, got '):
    prepare.prepare('cifar10', str(tmp_path / 'data'), url=url)
  with pytest.raises(UsageError, match=r'prepare it with python -m'):
    tfds.tfds('cifar10', data_dir=str(tmp_path / 'data'))


def test_members_with_a_path_outside_the_folder_are_never_written(
  served, tmp_path
):
  outside = tmp_path / 'outside.txt'
  content, _ = archive(CIFAR10, extra=[str(outside), '../../outside.txt'])
  url, checksum = served(content)
  before = set(pathlib.Path(tmp_path).rglob('outside*'))
  prepare.prepare('cifar10', str(tmp_path / 'a/b'), url=url, sha256=checksum)
  assert set(pathlib.Path(tmp_path).rglob('outside*')) == before == set()


@pytest.mark.parametrize('content', [b'no archive', archive(CIFAR100)[0]])
def test_an_archive_without_the_expected_files_is_rejected(
  content, served, tmp_path
):
  url, checksum = served(content)
  data_dir = tmp_path / 'data'
  with pytest.raises(UsageError, match=r"no file 'cifar-10-batches-bin/"):
    prepare.prepare('cifar10', str(data_dir), url=url, sha256=checksum)


def test_a_missing_archive_is_reported_in_one_line(served, tmp_path, capsys):
  url, _ = served(b'')
  arguments = [f'--data_dir={tmp_path}/data', f'--url={url}.nowhere']
  assert prepare.main(['cifar10', *arguments]) == 2
  error = capsys.readouterr().err
  assert 'cannot download http://127.0.0.1' in error and error.count('\n') == 1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ['mnist', '--data_dir=x'],
      'run tfds build mnist --file_format=array_reco',
    ),
    ([], 'required: dataset'),
    (['cifar10', '--sha256=0'], 'unrecognized arguments: --sha256=0'),
  ],
)
def test_wrong_arguments_are_reported_in_one_line(arguments, message, capsys):
  assert prepare.main(arguments) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
