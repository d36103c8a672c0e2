"""Prepares data sets for TensorFlow Datasets (TFDS) without TensorFlow.

  python -m jaxdistill.data.prepare cifar10 --data_dir=~/tensorflow_datasets

The result is the same as that of TFDS itself, in the format array_record.
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

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

DATASETS = ('cifar10', 'cifar100')
SECONDS = 60  # after which a silent server is given up


def prepare(
  dataset: str,
  data_dir: str | None = None,
  *,
  url: str | None = None,
  sha256: str | None = None,
) -> dict[str, int]:
  """Downloads a data set and writes it where `tfds` finds it.

  Args:
    dataset: one of `DATASETS`.
    data_dir: the folder to write to; None: the default folder of TFDS.
    url: the address of the archive, which may begin with 'file://'; None: the
      address at which it was published.
    sha256: the archive's checksum; None: the published one.

  Returns:
    The number of examples of each split.

  Raises:
    UsageError: the archive cannot be downloaded or has another checksum, or the
      folder cannot be written to.
  """
  if dataset not in DATASETS:
    raise UsageError(
      f'dataset: expected one of {", ".join(DATASETS)} to prepare without '
      f'TensorFlow, got {dataset!r}; if you have TensorFlow, run '
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
  """Returns the command line that prepares a data set.

  Args:
    dataset: the name of the data set in TFDS.
    data_dir: the folder to write to; None: the default folder of TFDS.
  """
  where = '' if data_dir is None else f' --data_dir={data_dir}'
  if dataset in DATASETS:
    return f'python -m jaxdistill.data.prepare {dataset}{where}'
  return (
    f'tfds build {dataset} --file_format=array_record{where} (which needs '
    'TensorFlow)'
  )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Suppresses TFDS's warnings about missing data sets.

  The library reports these in its own error messages.
  """
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)


def fetch(url: str, path: pathlib.Path, sha256: str) -> None:
  """Downloads a file.

  Args:
    url: the address of the file.
    path: where to write it.
    sha256: the expected checksum.

  Raises:
    UsageError: the file cannot be downloaded, or has another checksum.
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
    raise UsageError(f'cannot download {url} ({error})') from None
  if checksum.hexdigest() != sha256:
    raise UsageError(
      f'{url}: expected a file with the SHA-256 {sha256}, got '
      f'{checksum.hexdigest()}'
    )


def _builder(dataset: str, data_dir: str | None, archive: pathlib.Path) -> Any:
  """Returns TFDS's builder, changed so that it reads archives by itself."""
  purpose = 'preparing a TFDS data set'
  tensorflow_datasets = optional.require('tensorflow_datasets', purpose)
  cifar = optional.require(
    'tensorflow_datasets.image_classification.cifar', purpose
  )
  pillow = optional.require('PIL.Image', purpose)

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
            # TFDS encodes arrays with TensorFlow, but not Pillow images.
            'image': pillow.fromarray(image),
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
  """Returns the content of a file in an archive.

  Nothing is unpacked to disk, so no file can be written to a wrong place.

  Raises:
    UsageError: the archive cannot be read or does not contain the file.
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
  """Reports errors in one line, without the usage text."""

  def error(self, message: str) -> Any:
    raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line.

  Args:
    argv: the arguments; None: those of this process.

  Returns:
    The exit code: 0, or 2 after a usage error.
  """
  parser = _Parser(
    prog='jaxdistill.data.prepare',
    description='Prepares a data set for TFDS without TensorFlow.',
  )
  parser.add_argument('dataset', help=', '.join(DATASETS))
  parser.add_argument('--data_dir', help='default: that of TFDS')
  parser.add_argument('--url', help='another address of the archive')
  try:
    counts = prepare(**vars(parser.parse_args(argv)))
  except UsageError as error:
    print(f'jaxdistill: {" ".join(str(error).split())}', file=sys.stderr)
    return 2
  for split, count in counts.items():
    print(f'{split}: {count} examples')
  return 0


if __name__ == '__main__':
  sys.exit(main())
