"""Prepares data sets for TFDS without TensorFlow.

  python -m jaxdistill.data.prepare cifar10 --data_dir=~/tensorflow_datasets

The result is what TFDS itself makes, in the format array_record.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import os
import pathlib
import sys
import tarfile
import tempfile
from typing import Any
import urllib.request

from absl import logging
import numpy as np
import PIL.Image

from jaxdistill.types import UsageError

DATASETS = ('cifar10', 'cifar100')
SECONDS = 60  # that a server may be silent


def prepare(
  dataset: str,
  data_dir: str | None = None,
  *,
  url: str | None = None,
  sha256: str | None = None,
) -> dict[str, int]:
  """Fetches a data set and writes it where `tfds` finds it.

  Args:
    dataset: one of `DATASETS`.
    data_dir: where to write; None: where TFDS keeps its data.
    url: of the archive, 'file:///...' too; None: its home.
    sha256: the archive's checksum; None: the published one.

  Returns:
    The number of examples of each split.

  Raises:
    UsageError: it cannot be fetched, is not what was published, or the place
      cannot be written.
  """
  if dataset not in DATASETS:
    raise UsageError(
      f'cannot prepare {dataset!r} without TensorFlow, only '
      f'{", ".join(DATASETS)}; where TensorFlow is, run '
      f'{command(dataset, data_dir)}'
    )
  if data_dir is not None:
    data_dir = os.path.expanduser(data_dir)
  with tempfile.TemporaryDirectory() as folder:
    archive = pathlib.Path(folder, 'archive.tar.gz')
    builder = _builder(dataset, data_dir, archive)
    if not builder.is_prepared():
      home = builder._cifar_info.url
      published = builder.url_infos[home].checksum
      fetch(url or home, archive, sha256 or published)
      try:
        builder.download_and_prepare()
      except OSError as error:
        raise UsageError(
          f'cannot prepare {dataset!r} in {builder.data_dir!r} ({error})'
        ) from None
  return {k: v.num_examples for k, v in builder.info.splits.items()}


def command(dataset: str, data_dir: str | None) -> str:
  """The command line that prepares a data set."""
  where = '' if data_dir is None else f' --data_dir={data_dir}'
  if dataset in DATASETS:
    return f'python -m jaxdistill.data.prepare {dataset}{where}'
  return (
    f'tfds build {dataset} --file_format=array_record{where} (which needs '
    'TensorFlow)'
  )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Without TFDS's warnings that a data set is not there, which we say."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)


def fetch(url: str, path: pathlib.Path, sha256: str) -> None:
  """Downloads a file.

  Raises:
    UsageError: it cannot be had, or has another checksum.
  """
  checksum = hashlib.sha256()
  try:
    with (
      urllib.request.urlopen(url, timeout=SECONDS) as source,
      path.open('wb') as target,
    ):
      while block := source.read(1 << 20):
        checksum.update(block)
        target.write(block)
  except (OSError, ValueError) as error:
    raise UsageError(f'cannot fetch {url} ({error})') from None
  if checksum.hexdigest() != sha256:
    raise UsageError(
      f'{url} is not what was published: its SHA-256 is '
      f'{checksum.hexdigest()}, not {sha256}'
    )


def _builder(dataset: str, data_dir: str | None, archive: pathlib.Path) -> Any:
  """The builder of TFDS, but for what it reads archives with."""
  import tensorflow_datasets
  from tensorflow_datasets.image_classification import cifar

  stock = {'cifar10': cifar.Cifar10, 'cifar100': cifar.Cifar100}[dataset]

  def split_generators(self, dl_manager):
    del dl_manager
    info = self._cifar_info
    for key, file in zip(info.label_keys, info.label_files):
      names = _member(archive, info.prefix + file).decode().split('\n')
      self.info.features[key].names = [name for name in names if name]
    return {
      'train': self._generate_examples('train_', info.train_files),
      'test': self._generate_examples('test_', info.test_files),
    }

  def examples(self, split_prefix, filepaths):
    info, index = self._cifar_info, 0
    for file in filepaths:
      content = np.frombuffer(_member(archive, info.prefix + file), np.uint8)
      count = len(info.label_keys)
      for record in content.reshape(-1, count + 3 * 32 * 32):
        image = record[count:].reshape(3, 32, 32).transpose(1, 2, 0)
        yield (
          index,
          {
            **dict(zip(info.label_keys, map(int, record[:count]))),
            'id': f'{split_prefix}{index:05d}',
            # TFDS encodes an array with TensorFlow, a Pillow image without.
            'image': PIL.Image.fromarray(image),
          },
        )
        index += 1

  methods = {
    '_split_generators': split_generators,
    '_generate_examples': examples,
    '__module__': stock.__module__,
  }
  with tensorflow_datasets.core.registered.skip_registration(), quiet():
    return type(stock.__name__, (stock,), methods)(
      data_dir=data_dir, file_format='array_record'
    )


def _member(archive: pathlib.Path, name: str) -> bytes:
  """A file of an archive. Nothing is unpacked, so nothing can be misplaced.

  Raises:
    UsageError: the archive has no such file, or is none.
  """
  try:
    with tarfile.open(archive) as pack:
      file = pack.extractfile(name)
      if file is None:
        raise KeyError(name)
      return file.read()
  except (KeyError, tarfile.TarError, EOFError, OSError) as error:
    raise UsageError(f'the archive has no file {name!r} ({error})') from None


class _Parser(argparse.ArgumentParser):
  """Errors in one line, without the usage."""

  def error(self, message: str) -> Any:
    raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code, 2 for a wrong choice."""
  parser = _Parser(
    prog='jaxdistill.data.prepare',
    description='Prepares a data set for TFDS without TensorFlow.',
  )
  parser.add_argument('dataset', help=', '.join(DATASETS))
  parser.add_argument('--data_dir', help="default: TFDS's own")
  parser.add_argument('--url', help='of the archive, if not its home')
  try:
    made = prepare(**vars(parser.parse_args(argv)))
  except UsageError as error:
    print(f'jaxdistill: {" ".join(str(error).split())}', file=sys.stderr)
    return 2
  for split, count in made.items():
    print(f'{split}: {count} examples')
  return 0


if __name__ == '__main__':
  sys.exit(main())
