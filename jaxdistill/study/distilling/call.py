"""`distill`: from a folder of images and a teacher to a small model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import sys
from typing import Any, Literal

from jaxdistill.core import checks, writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset, Network
from jaxdistill.study import (
  build,
  exports,
  hub_upload,
  models,
  runs,
)
from jaxdistill.study import settings as settings_lib
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.distilling import (
  announcement,
  compiling,
  fine_tuning,
  sources,
  students,
  teachers,
)
from jaxdistill.study.distilling.compiling import Choices
from jaxdistill.study.distilling.outcome import Distilled
from jaxdistill.study.distilling.sources import Source
from jaxdistill.study.distilling.students import Student
from jaxdistill.study.distilling.teacher_sections import Teacher
from jaxdistill.study.drafts import Role
from jaxdistill.study.formats import table
from jaxdistill.study.parse import parse
from jaxdistill.study.plans import Plan
from jaxdistill.study.registry import DATASETS, METHODS, TABLES
from jaxdistill.study.registry import NETWORKS as NETWORK_TABLE
from jaxdistill.training.distributed import hosts


def distill(
  data: str | os.PathLike[str] | Mapping[str, Any],
  *,
  teacher: Any,
  student: Any = 0.5,
  out: str | os.PathLike[str],
  method: str = 'auto',
  baseline: bool = True,
  seeds: int = 3,
  epochs: float | None = None,
  batch_size: int | None = None,
  image_size: int | None = None,
  labels: str = 'auto',
  cache_teacher: bool | int | Literal['auto'] = 'auto',
  cache_top_k: int | None = None,
  teacher_epochs: float | None = None,
  formats: Sequence[str] = ('safetensors',),
  push_to_hub: str | None = None,
  show: bool = True,
  interrupted: Callable[[], bool] = lambda: False,
) -> Distilled:
  """Distils a teacher into a small student, and says whether it helped.

  The arguments are compiled into a config, which is kept as `config.py` in the
  work directory and run: `jaxdistill run OUT/config.py --workdir=OUT` does the
  same. If the call is repeated, it continues where it stopped.

  Args:
    data: a folder of images; a .npz file; Hugging Face's parquet files or a
      folder of `save_to_disk`, or 'hf:NAME' of the hub; 'digits'; or the
      section `data` of a config.
    teacher: the work directory of an earlier run, whose teacher is taken, or
      'WORKDIR:ROW' for the student of a row; a file of this library; a file of
      PyTorch weights as 'NETWORK:FILE'; the name of a network, which is then
      trained on the labels; an `nnx.Module`; a Linen (module, variables); a
      (network, variables); or the section `teacher` of a config. A list of
      trained teachers joins their vectors, see `study.several_teachers`.
    student: the share of the teacher's width, in (0, 1); the name of a network;
      a network; 'my_file:my_function'; or the section `student` of a config.
    out: the work directory.
    method: the name of a method. 'auto': 'embedding' if the teacher is not a
      classifier; 'kd' if its classes are those of the data or there are no
      labels; and else 'srrl', which compares features. With 'embedding', the
      student learns the teacher's vectors, whether there are labels or not.
    baseline: whether to train the student on the labels alone as well, which
      the verdict needs. With 'embedding', this student is measured by the
      vectors that its classifier reads.
    seeds: the number of times that each student is trained.
    epochs: passes over the training images; None: about 2,000 steps.
    batch_size: the number of images in a batch; None: 64, or fewer if the
      training images are fewer than 640.
    image_size: the height and width in pixels of the images; None: the median
      of their shorter sides, at most 224, and a multiple of 32 if it is large.
    labels: 'auto', 'folders', 'none' or a file of labels, see `data.images`;
      for Hugging Face 'auto', 'none' or the column of labels.
    cache_teacher: for how many augmented versions of each training image the
      teacher's outputs are computed once and stored in the work directory.
      True: 8; False: the teacher runs in each step. The student sees only
      versions whose outputs are stored. 'auto' stores them only if all versions
      of an image are equal and if this saves time, so that the student sees
      what it would see otherwise.
    cache_top_k: how many of the teacher's largest scores are stored, if it has
      many classes; None: all of them.
    teacher_epochs: passes over the training images for a teacher that is
      trained or fine-tuned on the labels; None: as many as the student's for a
      new teacher, about 500 steps for one of other classes.
    formats: the formats in which the distilled students are exported, see
      `study.export`.
    push_to_hub: 'OWNER/NAME' of a model on the Hugging Face Hub to which the
      exported students and their cards are uploaded.
    show: whether to say what is done, and the progress.
    interrupted: () -> whether to stop after the step that is running.

  Returns:
    The student and the teacher as functions of raw images, the scores, the
    verdict and the files.

  Raises:
    UsageError: an argument does not work, or the work directory belongs to
      another call. Nothing has been written.
  """
  _check(method, seeds, epochs, batch_size, formats)
  if teacher_epochs is not None:
    checks.number('teacher_epochs', teacher_epochs, above=0)
  settings_lib.check_cache_teacher(cache_teacher, cache_top_k)
  if push_to_hub is not None:
    hub_upload.check(push_to_hub)
    if not formats:
      raise UsageError('push_to_hub: expected formats to upload, got none')
  workdir = pathlib.Path(out)
  source = sources.found(data, labels, image_size)
  # The config names files by absolute paths, so that it works in any folder.
  place = workdir.absolute()
  chosen_teacher = teachers.chosen(teacher, source.image_shape, place)
  if not source.has_labels and chosen_teacher.outputs is None:
    raise UsageError(
      f'teacher: {chosen_teacher.title!r} has no weights, and the images have '
      'no labels to train it with; name a file or a work directory as teacher, '
      'or pass the folder that contains one folder for each class, with '
      "labels='folders' if images lie beside these folders"
    )
  gives_vectors = not chosen_teacher.is_classifier
  can_learn = source.has_labels and chosen_teacher.new_head_section is not None
  if gives_vectors and not can_learn and method in compiling.NEED_CLASSES:
    images = '' if source.has_labels else 'images without labels and '
    raise UsageError(
      f"method: expected 'embedding' for {images}a teacher that gives vectors, "
      f'got {method!r}'
    )
  chosen_student = students.chosen(student, chosen_teacher, place)
  choices = Choices(
    method,
    baseline,
    seeds,
    epochs,
    batch_size,
    cache_teacher,
    cache_top_k,
    teacher_epochs,
  )
  plan = _plan(source, chosen_teacher, chosen_student, choices, workdir)
  if show and hosts.first():
    for line in announcement.lines(
      plan, source, chosen_teacher, chosen_student, choices, workdir
    ):
      print(line, file=sys.stderr)
  results = runs.run(plan, workdir, show=show, interrupted=interrupted)
  row = plan.rows[-1].label
  files = []
  if formats:
    files = exports.export(
      plan, workdir, formats, (row,), push_to_hub=push_to_hub
    )
  return Distilled(plan, workdir, results, tuple(files), source.has_labels)


def _check(
  method: str,
  seeds: int,
  epochs: float | None,
  batch_size: int | None,
  formats: Sequence[str],
) -> None:
  """Checks the arguments that can be checked without data."""
  checks.choice('method', method, ['auto', *METHODS])
  checks.integer('seeds', seeds, at_most=settings_lib.MOST_SEEDS)
  if epochs is not None:
    checks.number('epochs', epochs, above=0)
  if batch_size is not None:
    checks.integer('batch_size', batch_size)
  if isinstance(formats, str):
    raise UsageError(f'formats: expected a sequence of names, got {formats!r}')
  table.check(formats)


def _plan(
  source: Source,
  teacher: Teacher,
  student: Student,
  choices: Choices,
  workdir: pathlib.Path,
) -> Plan:
  """Compiles the config and plans it; nothing is left if it is refused."""
  section = {**teacher.data, **source.section}
  dataset: Dataset = parse(section, DATASETS, 'data', TABLES).build({})
  with _kept({**teacher.files, **student.files}, workdir):
    outputs = dataset.num_classes or teacher.outputs or 1
    network = _network(student.section, 'student', outputs)
    is_fine_tuned = compiling.is_fine_tuned(
      dataset, source.has_labels, teacher, choices
    )
    if is_fine_tuned:
      learned = fine_tuning.standardisation(teacher, dataset, section)
      section |= learned
      dataset = dataset._replace(**learned)
    teacher_network = None
    if teacher.network is not None:
      teacher_network = _network(teacher.network, 'teacher', outputs)
    config = compiling.compiled(
      section,
      dataset,
      source.has_labels,
      teacher,
      student,
      network,
      teacher_network,
      choices,
    )
    plan = build.plan(config, dataset)
    if is_fine_tuned:
      fine_tuning.check(plan)
    for row in plan.rows:
      workdir_lib.check_row(workdir, row)
  return plan


def _network(section: Mapping[str, Any], role: Role, outputs: int) -> Network:
  """Returns the network of a section, with a number of outputs."""
  parsed = parse(section, NETWORK_TABLE, role, TABLES, context=('num_classes',))
  return models.build_network(parsed, role, outputs)


@contextlib.contextmanager
def _kept(files: Mapping[str, bytes], folder: pathlib.Path) -> Iterator[None]:
  """Writes files, and removes them if a UsageError follows."""
  had_folder = folder.exists()
  new = [name for name in files if not (folder / name).exists()]
  try:
    if hosts.first():
      for name in new:
        writing.write(folder / name, files[name])
    yield
  except UsageError:
    for name in new:
      (folder / name).unlink(missing_ok=True)
    if new and not had_folder:
      with contextlib.suppress(OSError):
        folder.rmdir()
    raise
