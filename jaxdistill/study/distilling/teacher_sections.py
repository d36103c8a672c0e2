"""Teachers as configs name them, and the sections that a call makes of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Teacher(NamedTuple):
  """A teacher as a config names it.

  Attributes:
    section: the section of the config.
    title: what it is called.
    network: the section of its network, for a student that is a share of it;
      None if it is not made of blocks.
    outputs: the number of its outputs; None if it has as many as the data have
      classes.
    is_trained: whether its weights exist already.
    label_names: the classes of its outputs, if its file names them.
    files: name -> content of the files that the section names and that have yet
      to be written into the work directory.
    data: options of the data that its weights ask for.
    is_classifier: whether its outputs are scores of classes; those of a network
      whose last layer is not known are taken for scores.
    parts: the teachers whose vectors it joins; empty for a single teacher.
    head: the name of the stage that gives scores; '': there is none.
  """

  section: dict[str, Any]
  title: str
  network: dict[str, Any] | None = None
  outputs: int | None = None
  is_trained: bool = True
  label_names: tuple[str, ...] = ()
  files: Mapping[str, bytes] = {}
  data: Mapping[str, Any] = {}
  is_classifier: bool = True
  parts: 'tuple[Teacher, ...]' = ()
  head: str = 'head'

  @property
  def has_unknown_layers(self) -> bool:
    """Whether its outputs may be scores, and no earlier feature is known.

    With the method `embedding`, its outputs then count as vectors.
    """
    if self.parts:
      return any(part.has_unknown_layers for part in self.parts)
    return self.is_classifier and self.network is None

  @property
  def pooled_section(self) -> dict[str, Any]:
    """The section of a teacher that gives vectors instead of scores."""
    is_pooled = not self.is_classifier or self.network is None
    if is_pooled or not self.is_trained:
      return self.section
    files: dict[str, Any] = {
      key: self.section[key]
      for key in ('checkpoint', 'weights', 'image_size')
      if key in self.section
    }
    network = {**(self.network or {}), 'num_classes': self.outputs}
    return {'name': 'pooled', 'network': network, **files}

  @property
  def standardised_section(self) -> dict[str, Any]:
    """The section of a trained teacher whose vectors are standardised."""
    if self.parts:
      return self.section
    return {'joined': [self.pooled_section]}

  @property
  def new_head_section(self) -> dict[str, Any] | None:
    """The section of a teacher that goes on to learn other classes.

    It begins with these weights, without those of the head. None: its layers
    are not known, it has no head or no weights yet, or it resizes its images,
    which a teacher that is trained cannot do.
    """
    if self.network is None or not self.head or not self.is_trained:
      return None
    if 'image_size' in self.section:
      return None
    initial: dict[str, Any] = {'name': 'pretrained', 'without': [self.head]}
    if 'weights' in self.section:
      initial['path'] = self.section['weights']
      initial['network'] = {**self.network, 'num_classes': self.outputs}
    else:
      initial['path'] = self.section['checkpoint']
    network = {k: v for k, v in self.network.items() if k != 'num_classes'}
    return {**network, 'initial': initial}
