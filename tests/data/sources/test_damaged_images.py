"""Files that are no images, or damaged ones: each is named in one line."""

import io
import os
import socket
import struct

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def saved(kind='PNG') -> bytes:
  file = io.BytesIO()
  PIL.Image.fromarray(RGB).save(file, kind)
  return file.getvalue()


def huge() -> bytes:
  """Returns a bitmap that claims 20,000 x 20,000 pixels."""
  file = bytearray(saved('BMP'))
  file[18:26] = struct.pack('<2i', 20000, 20000)
  return bytes(file)


def damaged_dds() -> bytes:
  header = struct.pack('<4s7I44x', b'DDS ', 124, 0x1007, 4, 4, 0, 0, 0)
  return header + struct.pack('<2I4s5I', 32, 4, b'ABCD', 0, 0, 0, 0, 0) + b'x'


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'text',
    saved()[:-30],
    saved('JPEG')[:100],
    saved('TIFF')[:90],
    saved('WEBP')[:40],
    damaged_dds(),
    b'BLP1' + struct.pack('<6I', 0, 0, 4, 4, 5, 0) + bytes(20),
    b'BLP2' + b'\xff' * 40,
    huge(),
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n',
    b'\x89HDF\r\n\x1a\n' + bytes(100),
    b'\0\0\0\x20ftypavif' + bytes(40),
    b'qoif' + struct.pack('>2I2B', 4, 4, 3, 0),
    b'8BPS' + b'\xff' * 30,
  ],
)
def test_damage_becomes_one_line_that_names_the_file(content, tmp_path):
  path = tmp_path / 'bad image.png'
  path.write_bytes(content)
  with pytest.raises(UsageError, match=r"cannot read '.*bad image\.png'") as e:
    jd.data.read_image(path)
  assert '\n' not in str(e.value) and '0x' not in str(e.value)
  with pytest.raises(UsageError, match='cannot read the bytes as an image'):
    jd.data.read_image(content)


@pytest.mark.parametrize(
  'error',
  [
    NotImplementedError(),
    RuntimeError('x\ny'),
    struct.error('x'),
    MemoryError(),
  ],
)
def test_any_error_of_a_decoder_becomes_one_line(error, monkeypatch):
  def load(self):
    raise error

  file = saved()
  monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', load)
  with pytest.raises(UsageError, match=type(error).__name__) as caught:
    jd.data.read_image(file)
  assert '\n' not in str(caught.value)


def test_random_damage_never_raises_anything_else():
  """Seeded flips of bits in files of ten formats."""
  rng = np.random.default_rng(1)
  kinds = (
    'PNG',
    'JPEG',
    'GIF',
    'BMP',
    'TIFF',
    'WEBP',
    'TGA',
    'PCX',
    'DDS',
    'SGI',
  )
  for kind in kinds:
    file = saved(kind)
    for _ in range(20):
      content = np.frombuffer(file, np.uint8).copy()
      places = rng.integers(0, min(len(content), 80), 3)
      content[places] = rng.integers(0, 256, 3)
      try:
        decoded = jd.data.read_image(content.tobytes())
      except UsageError as error:
        assert '\n' not in str(error)
      else:
        assert decoded.dtype == np.uint8 and decoded.shape[2] == 3


def make_socket(path):
  with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(str(path))


@pytest.mark.parametrize(
  'make',
  [
    os.mkfifo,
    os.mkdir,
    make_socket,
    lambda path: os.symlink('/dev/zero', path),
  ],
  ids=['pipe', 'folder', 'socket', 'device'],
)
def test_what_is_no_regular_file_is_never_opened(make, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # names of sockets are short
  make('x.png')
  with pytest.raises(UsageError, match=r"'x\.png' .*not a regular file"):
    jd.data.read_image('x.png')


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UsageError, match=r'nowhere\.png.*No such file'):
    jd.data.read_image(tmp_path / 'nowhere.png')


def test_what_is_neither_a_path_nor_bytes_is_refused():
  for file in (0, None, [b'x']):
    with pytest.raises(UsageError, match='expected a path or the bytes of a'):
      jd.data.read_image(file)
  with pytest.raises(UsageError, match='embedded null'):
    jd.data.read_image('x\0.png')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'channels': 2}, 'channels: expected 1 or 3, got 2'),
    ({'background': 'whit'}, "background 'whit'; did you mean 'white'"),
    ({'background': 3}, 'background: expected .* got 3'),
    ({'background': [1, 2]}, 'background: expected 3 entries, .* got 2'),
    ({'background': [1, 2, 256]}, 'background: .* from 0 to 255, got 256'),
    ({'range': 5}, 'range: expected two different numbers, .* got 5'),
    ({'range': [1, 1]}, r'range: expected two different .* got \[1, 1\]'),
    ({'range': [0, 'x']}, "range: expected a number, got 'x'"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(UsageError, match=message):
    jd.data.read_image(saved(), **options)


def test_formats_without_pixels_are_no_images():
  suffixes = decoding.suffixes()
  assert {'.png', '.jpg', '.tif', '.webp', '.mpo', '.gif'} <= suffixes
  assert not {'.pdf', '.eps', '.ps', '.h5', '.hdf', '.mpg', '.mpeg'} & suffixes
  assert not {'.grib', '.bufr', '.palm', '.wmf', '.emf'} & suffixes
