"""One image file: its levels, its orientation, its background, its damage."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 5, 3), np.uint8)
# Every level of 16 bits, and the nearest of 256 levels.
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
EXPECTED_RAMP = np.rint(np.arange(65536) * 255 / 65535).reshape(256, 256)


def saved(image, kind='PNG', **options) -> bytes:
  """Returns an image file; arrays become images first."""
  if isinstance(image, np.ndarray):
    image = PIL.Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def png(width, height, depth, kind, rows, *chunks) -> bytes:
  """Returns a PNG file that is written chunk by chunk."""

  def chunk(name, data):
    body = name + data
    crc = struct.pack('>I', zlib.crc32(body))
    return struct.pack('>I', len(data)) + body + crc

  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0)
  data = zlib.compress(b''.join(b'\0' + row for row in rows))
  parts = [(b'IHDR', header), *chunks, (b'IDAT', data), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


def pgm(levels) -> bytes:
  header = b'P5 %d %d 65535\n' % levels.shape[::-1]
  return header + levels.astype('>u2').tobytes()


def tiff(levels, *, bits, photometric=1, order='<', sample_format=1) -> bytes:
  """Returns a TIFF file of one strip, written tag by tag."""
  data = levels if isinstance(levels, bytes) else levels.tobytes()
  height, width = (2, 2) if isinstance(levels, bytes) else levels.shape
  tags = [
    *((256, width), (257, height), (258, bits), (259, 1)),
    *((262, photometric), (273, 8), (277, 1), (278, height)),
    *((279, len(data)), (339, sample_format)),
  ]
  mark = b'II*\0' if order == '<' else b'MM\0*'
  directory = struct.pack(order + 'H', len(tags)) + b''.join(
    struct.pack(order + 'HHII', tag, 4, 1, value) for tag, value in tags
  )
  start = struct.pack(order + 'I', 8 + len(data))
  return mark + start + data + directory + bytes(4)


@pytest.mark.parametrize(
  'file',
  [
    saved(RAMP),
    saved(RAMP, 'TIFF'),
    saved(RAMP, 'TIFF', compression='tiff_lzw'),
    tiff(RAMP.astype('>u2'), bits=16, order='>'),
    saved(RAMP.astype(np.int32), 'TIFF'),
    pgm(RAMP),
    saved(RAMP, 'JPEG2000'),
  ],
  ids=['png', 'tiff', 'lzw', 'big-endian', '32 bits', 'pgm', 'jpeg2000'],
)
def test_levels_of_16_bits_keep_their_range(file):
  grey = jd.data.read_image(file, channels=1)
  np.testing.assert_array_equal(grey[..., 0], EXPECTED_RAMP)
  colour = jd.data.read_image(file)
  np.testing.assert_array_equal(colour, np.repeat(grey, 3, -1))


def test_an_image_is_read_at_the_size_that_a_network_takes():
  """The shorter side is resized and the middle kept, as by `data.images`."""
  halves = np.zeros((8, 24, 3), np.uint8)
  halves[:, 12:] = 255
  image = jd.data.read_image(saved(halves), image_size=4)
  assert image.shape == (4, 4, 3)
  assert (image[:, 0] < 64).all() and (image[:, 3] > 191).all()
  with pytest.raises(UsageError, match='image_size: expected'):
    jd.data.read_image(saved(halves), image_size=0)


def test_tags_of_tiff_say_what_is_white():
  """12 bits end at 4,095, and in photometric 0 the level 0 is white."""
  packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01])  # 0 4095, 2048 1
  grey = jd.data.read_image(tiff(packed, bits=12), channels=1)
  assert grey[..., 0].tolist() == [[0, 255], [128, 0]]
  white = tiff(RAMP, bits=16, photometric=0)
  grey = jd.data.read_image(white, channels=1)
  np.testing.assert_array_equal(grey[..., 0], EXPECTED_RAMP[::-1, ::-1])


def test_levels_with_a_sign_need_a_range_and_those_of_8_bits_are_refused():
  levels = np.array([[0, 16383], [-32768, 32767]], np.int16)
  signed = tiff(levels, bits=16, sample_format=2)
  with pytest.raises(UsageError, match=r'without a sign.*`range`'):
    jd.data.read_image(signed, channels=1)
  grey = jd.data.read_image(signed, channels=1, range=(-32768, 32767))
  assert grey[..., 0].tolist() == [[128, 191], [0, 255]]
  with pytest.raises(UsageError, match='8 bits without a sign'):
    jd.data.read_image(tiff(levels.astype(np.int8), bits=8, sample_format=2))


def test_floating_point_levels_are_scaled_from_0_to_1():
  levels = np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6)
  grey = jd.data.read_image(saved(levels, 'TIFF'), channels=1)
  np.testing.assert_array_equal(grey[..., 0], np.rint(255 * levels))


@pytest.mark.parametrize(
  'levels',
  [
    np.linspace(0, 255, 6, dtype=np.float32).reshape(2, 3),
    np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    np.full((2, 3), np.nan, np.float32),
    np.full((2, 3), -5, np.int32),
    np.full((2, 3), 65536, np.int32),
  ],
)
def test_levels_without_a_range_are_refused_and_a_range_mends_it(levels):
  file = saved(levels, 'TIFF')
  with pytest.raises(UsageError, match=r'expected levels from 0 to .*`range`'):
    jd.data.read_image(file)
  if np.isnan(levels).any():
    with pytest.raises(UsageError, match='expected finite levels'):
      jd.data.read_image(file, range=(0, 1))
    return
  grey = jd.data.read_image(file, channels=1, range=(-10, 245))
  expected = np.rint(np.clip(levels + 10.0, 0, 255))
  np.testing.assert_array_equal(grey[..., 0], expected)


def test_a_range_may_end_below_that_of_the_type_and_be_reversed():
  for black, white in ((0, 4095), (4095, 0)):
    grey = jd.data.read_image(saved(RAMP), channels=1, range=(black, white))
    shares = (RAMP.astype(float) - black) / (white - black)
    np.testing.assert_array_equal(
      grey[..., 0], np.rint(255 * shares.clip(0, 1))
    )
  np.testing.assert_array_equal(
    jd.data.read_image(saved(RGB), range=(0, 100)), RGB
  )


@pytest.mark.parametrize(
  'mode',
  ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'PA', 'RGBX'],
)
@pytest.mark.parametrize('channels', [1, 3])
def test_every_mode_becomes_eight_bits(mode, channels):
  image = PIL.Image.fromarray(RGB)
  if mode == 'LAB':
    profiles = map(PIL.ImageCms.createProfile, ('sRGB', 'LAB'))
    image = PIL.ImageCms.profileToProfile(image, *profiles, outputMode='LAB')
  elif mode == 'PA':
    image = image.convert('P').convert('PA')
  else:
    image = image.convert(mode)
  kind = {'PA': 'TIFF', 'LA': 'PNG', 'RGBA': 'PNG'}.get(mode, 'TIFF')
  decoded = jd.data.read_image(saved(image, kind), channels=channels)
  plain = PIL.Image.open(io.BytesIO(saved(image, kind))).convert('RGB')
  if channels == 1 and mode != 'P':
    plain = plain.convert('L')
  expected = np.asarray(plain).reshape(6, 5, -1)
  if mode == 'P' and channels == 1:
    expected = np.asarray(image.convert('L'))[..., None]
  np.testing.assert_allclose(decoded, expected, atol=1)
  assert decoded.dtype == np.uint8


def test_premultiplied_colours_are_divided_by_their_opacity():
  alpha = np.full((6, 5, 1), 128, np.uint8)
  image = PIL.Image.fromarray(np.concatenate([RGB, alpha], -1))
  premultiplied = image.convert('RGBa')
  decoded = jd.data.read_image(saved(image))
  pixels = decoding._converted(premultiplied, 'RGB', decoding.WHITE)
  np.testing.assert_allclose(np.asarray(pixels), decoded, atol=3)


def drawing(kind) -> bytes:
  """Returns a black drawing on transparent ground: the left half is drawn."""
  opaque = np.zeros((4, 6), np.uint8)
  opaque[:, :3] = 255
  rgba = np.zeros((4, 6, 4), np.uint8)
  rgba[..., 3] = opaque
  image = PIL.Image.fromarray(rgba)
  if kind == 'palette':
    palette = PIL.Image.fromarray((opaque == 0).astype(np.uint8), 'P')
    palette.putpalette([0, 0, 0, 0, 0, 0])
    return saved(palette, transparency=1)
  if kind == 'grey of 16 bits':
    rows = [struct.pack('>6H', 0, 0, 0, 7, 7, 7)] * 4
    return png(6, 4, 16, 0, rows, (b'tRNS', struct.pack('>H', 7)))
  if kind == 'RGB with one transparent colour':
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 1
    return saved(image, transparency=(1, 1, 1))
  if kind == 'gif':
    return saved(image, 'GIF')
  if kind == 'webp':
    return saved(image, 'WEBP', lossless=True)
  return saved(image.convert(kind))


@pytest.mark.parametrize(
  'kind',
  [
    *('RGBA', 'LA', 'palette', 'grey of 16 bits', 'gif', 'webp'),
    'RGB with one transparent colour',
  ],
)
def test_a_drawing_on_transparent_ground_is_seen(kind):
  file = drawing(kind)
  for channels in (1, 3):
    decoded = jd.data.read_image(file, channels=channels)
    assert (decoded[:, :3] == 0).all() and (decoded[:, 3:] == 255).all()
  black = jd.data.read_image(file, background='black')
  assert black.max() <= 1
  red = jd.data.read_image(file, background=[255, 0, 0])
  np.testing.assert_array_equal(red[:, 3:], np.tile([255, 0, 0], (4, 3, 1)))


def test_half_transparent_pixels_are_mixed_and_opaque_ones_kept():
  levels = np.arange(256, dtype=np.uint8)
  opaque = np.stack([levels, levels[::-1], levels, 0 * levels + 255], -1)[None]
  decoded = jd.data.read_image(saved(opaque))
  np.testing.assert_array_equal(decoded, opaque[..., :3])
  alpha = np.tile(levels, (256, 1))
  grey = np.stack([alpha.T, alpha], -1)
  decoded = jd.data.read_image(saved(grey), channels=1)[..., 0]
  share = alpha / 255
  expected = share * alpha.T + (1 - share) * 255
  assert np.abs(decoded - expected).max() <= 1


def turned(orientation, kind) -> bytes:
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  options = {'WEBP': {'lossless': True}, 'JPEG': {'quality': 100}}
  return saved(RGB, kind, exif=exif, **options.get(kind, {}))


# What to do with the stored pixels, by the definition in the EXIF standard.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'WEBP'])
def test_images_are_turned_upright(kind, orientation, tmp_path):
  stored = RGB
  if kind == 'JPEG':
    plain = PIL.Image.open(io.BytesIO(saved(RGB, kind, quality=100)))
    stored = np.asarray(plain)
  expected = UPRIGHT[orientation](stored)
  path = tmp_path / 'x'
  path.write_bytes(turned(orientation, kind))
  np.testing.assert_array_equal(jd.data.read_image(path), expected)
  assert decoding.size(str(path)) == expected.shape[:2]
  assert decoding.size(str(path), upright=False) == (6, 5)
  small = decoding.decode(path.read_bytes(), image_size=4)
  assert small.shape == (4, 4, 3)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
@pytest.mark.parametrize(
  'exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff\xff\xff', b'x']
)
def test_damaged_exif_leaves_the_image_as_it_is_stored(exif, tmp_path):
  path = tmp_path / 'x.jpg'
  path.write_bytes(saved(RGB, 'JPEG', exif=exif))
  assert jd.data.read_image(path).shape == (6, 5, 3)
  assert decoding.size(str(path)) == (6, 5)


def test_a_path_and_its_bytes_are_the_same_image(tmp_path):
  path = tmp_path / 'x.png'
  path.write_bytes(saved(RGB))
  for file in (path, str(path), path.read_bytes()):
    np.testing.assert_array_equal(jd.data.read_image(file), RGB)
