"""How image files become the raw images that an exported student takes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdistill.core import checks
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
# How the data sets of masks, depths and boxes do this for every task.
_OF_DATA = {
  **dict.fromkeys(('mask_folder', 'depth_folder', 'tfds_maps'), STRETCHED),
  **dict.fromkeys(('coco', 'tfds_boxes'), FITTED),
}


class Reading(NamedTuple):
  """How image files are read; see `decoding.read_image`.

  Attributes:
    background: the red, green and blue behind transparent pixels.
    range: the levels that become 0 and 255; None: the range of their type.
    fitting: how images are brought to the size of the student, one of
      `FITTINGS`; None: as `usual_fitting` says.
  """

  background: tuple[int, ...] = decoding.WHITE
  range: tuple[float, float] | None = None
  fitting: str | None = None


def of_data(
  section: Mapping[str, Any], task: Task, image_shape: tuple[int, ...]
) -> Reading:
  """Returns how a data set reads image files.

  Args:
    section: the section of the data set, with its defaults.
    task: the task of the student.
    image_shape: (H, W, C) of its images.
  """
  name = str(section.get('name'))
  reading = checked(section if name in _CHOOSING else {})
  usual = usual_fitting(task, image_shape)
  return reading._replace(fitting=_OF_DATA.get(name, usual))


def checked(keys: Mapping[str, Any]) -> Reading:
  """Returns the keys of `Reading`, which may be missing.

  Args:
    keys: a section, or the description of a file.

  Raises:
    UsageError: one of them is not valid.
  """
  background = keys.get('background', decoding.WHITE)
  how = keys.get('fitting')
  return Reading(
    decoding.checked_background('background', background),
    decoding.checked_range('range', keys.get('range')),
    how if how is None else checks.choice('fitting', how, FITTINGS),
  )


def usual_fitting(task: Task, image_shape: tuple[int, ...]) -> str:
  """Returns how images are usually brought to a size, one of `FITTINGS`.

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
  defaults = {'channels': 3, 'background': [*decoding.WHITE], 'range': None}
  options = {**about, 'channels': channels}
  others = [
    f', {key}={options[key]!r}'
    for key, default in defaults.items()
    if options[key] != default
  ]
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
  reading = of_data(section, task, image_shape)
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in reading._asdict().items()
  }
