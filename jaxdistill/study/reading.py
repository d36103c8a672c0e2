"""How image files become the raw images that an exported student takes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdistill.core.types import Task
from jaxdistill.data.sources import decoding

# Data sets with the keys `background` and `range`.
_CHOOSING = ('folder', 'images')
# How images are brought to the size of a student, in words.
SQUARE, STRETCHED, FITTED = 'square', 'stretched', 'fitted'
FITTINGS = {
  SQUARE: 'the shorter side is resized to the size of the input, and the '
  'square in the middle is kept',
  STRETCHED: 'the image is stretched to the size of the input',
  FITTED: 'the image is resized to fit into the size of the input, and the '
  'rest, on the right or at the bottom, is black',
}


class Reading(NamedTuple):
  """How pixels are read; see `decoding.read_image`.

  Attributes:
    background: the red, green and blue behind transparent pixels.
    range: the levels that become 0 and 255; None: the range of their type.
  """

  background: tuple[int, ...] = decoding.WHITE
  range: tuple[float, float] | None = None


def of_data(section: Mapping[str, Any]) -> Reading:
  """Returns how a data set reads pixels.

  Args:
    section: the section of the data set, with its defaults.
  """
  return checked(section if section.get('name') in _CHOOSING else {})


def checked(keys: Mapping[str, Any]) -> Reading:
  """Returns the keys 'background' and 'range', which may be missing.

  Args:
    keys: a section, or the description of a file.

  Raises:
    UsageError: one of them is not valid.
  """
  background = keys.get('background', decoding.WHITE)
  return Reading(
    decoding.checked_background('background', background),
    decoding.checked_range('range', keys.get('range')),
  )


def fitting(task: Task, image_shape: tuple[int, ...]) -> str:
  """Returns how images are brought to a size, one of `FITTINGS`.

  Args:
    task: the task of the student.
    image_shape: (H, W, C) of its images.
  """
  if 'boxes' in task.targets:
    return FITTED
  if task.whole_images or image_shape[0] != image_shape[1]:
    return STRETCHED
  return SQUARE


def code(about: Mapping[str, Any]) -> str:
  """Returns a line of Python that reads an image, for the model card.

  The line is empty if `read_image` cannot bring images to the student's size.

  Args:
    about: the description of the file, see `formats.source`.
  """
  size, _, channels = about['image_shape']
  if about['fitting'] != SQUARE or channels not in (1, 3):
    return ''
  options = {'channels': channels, **{k: about[k] for k in Reading._fields}}
  defaults = {'channels': 3, **_json(Reading())}
  others = [f', {k}={v!r}' for k, v in options.items() if v != defaults[k]]
  arguments = f"'photo.jpg', image_size={size}{''.join(others)}"
  return f'raw_images = jd.data.read_image({arguments})[None]\n'


def about(
  section: Mapping[str, Any], task: Task, image_shape: tuple[int, ...]
) -> dict[str, Any]:
  """Returns what a user has to know to read an image file, as JSON.

  Args:
    section: the section of the data set, with its defaults.
    task: the task of the student.
    image_shape: (H, W, C) of its images.
  """
  return {'fitting': fitting(task, image_shape), **_json(of_data(section))}


def _json(reading: Reading) -> dict[str, Any]:
  return {
    name: None if value is None else list(value)
    for name, value in reading._asdict().items()
  }
