"""Images that are embedded in a page, which loads no other files."""

import base64
import io

import numpy as np

from jaxdistill.core import optional
from jaxdistill.study.page.markup import Element, element


def picture(image: np.ndarray, description: str) -> Element:
  """Returns an image whose PNG file is embedded in the page.

  Args:
    image: uint8 `[H, W, 1]` or `[H, W, 3]`.
    description: the text that a screen reader reads out.
  """
  pillow = optional.require('PIL.Image', 'the images of the report')
  content = io.BytesIO()
  channels = image[..., 0] if image.shape[-1] == 1 else image
  pillow.fromarray(channels).save(content, 'png')
  encoded = base64.b64encode(content.getvalue()).decode('ascii')
  return element('img', src=f'data:image/png;base64,{encoded}', alt=description)


def example(image: np.ndarray, title: str, *lines: str) -> Element:
  """Returns an image with a title and further lines below it.

  Args:
    image: see `picture`.
    title: what the image shows.
    *lines: the predictions of models for it, or other lines.
  """
  texts = [part for line in lines for part in (element('br'), line)]
  caption = element('figcaption', element('strong', title), *texts)
  return element('figure', picture(image, title), caption, class_='example')


def gallery(*examples: Element, class_: str = '') -> Element:
  """Returns examples beside each other.

  Args:
    *examples: the examples.
    class_: a further class of the style; 'boxes' for larger images.
  """
  return element('div', *examples, class_=f'gallery {class_}'.strip())
