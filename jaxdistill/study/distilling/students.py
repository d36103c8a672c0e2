"""Which section of a config the argument `student` of a call stands for."""

from collections.abc import Mapping
import pathlib
from typing import Any, NamedTuple
import zlib

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks.registry import NETWORKS
from jaxdistill.networks.weights import files
from jaxdistill.study.distilling.teacher_sections import Teacher


class Student(NamedTuple):
  """A student as a config names it.

  Attributes:
    section: the section of the config.
    title: what it is called.
    files: see `teachers.Teacher`.
  """

  section: dict[str, Any]
  title: str
  files: Mapping[str, bytes] = {}


def chosen(student: Any, teacher: Teacher, out: pathlib.Path) -> Student:
  """Returns the student that a call means.

  Args:
    student: see `call.distill`.
    teacher: the teacher.
    out: the work directory, into which its file will be written.

  Raises:
    UsageError: there is no such network, or the teacher's cannot be narrowed.
  """
  if isinstance(student, Mapping):
    return Student(dict(student), str(student.get('name')))
  if isinstance(student, str):
    if ':' not in student and student not in NETWORKS:
      valid = ('a share such as 0.5', *NETWORKS)
      raise checks.unknown('student', student, valid)
    return Student({'name': student}, student)
  if isinstance(student, Model):
    raise UsageError(
      'student: expected a network without weights, got a model; write '
      'model.network'
    )
  if isinstance(student, Network):
    content = files.to_bytes(Model(student, {}))
    name = f'student-{zlib.crc32(content):08x}.safetensors'
    section = {'name': 'stored', 'path': str(out / name)}
    return Student(section, 'a network of your own', {name: content})
  if not isinstance(student, int | float):
    raise UsageError(
      'student: expected the name of a network, a share of the teacher such as '
      "0.5, a network, or 'my_file:my_function', got "
      f'{type(student).__name__}'
    )
  share = checks.number('student', student, above=0, below=1)
  if teacher.network is None:
    raise UsageError(
      f"student: {student} needs a teacher of the library's own blocks; name a "
      'network instead'
    )
  network = {k: v for k, v in teacher.network.items() if k != 'num_classes'}
  edit: dict[str, Any] = {'name': 'scaled', 'network': network}
  return Student({**edit, 'share': share}, f"{share:g} of the teacher's width")
