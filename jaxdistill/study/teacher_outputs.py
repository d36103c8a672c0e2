"""Stores the teacher's outputs for views of the training images in files.

The files are in `teacher_outputs/KEY/` of the work directory. The key depends
on the teacher's variables and on everything else that determines the outputs,
so that the files of another teacher are never read.
"""

from collections.abc import Callable, Mapping
import hashlib
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Batch, Model, Variables
from jaxdistill.data.loading import streaming
from jaxdistill.data.loading.stored import StoredColumn
from jaxdistill.data.transforms import augment as augment_lib
from jaxdistill.data.transforms import top_scores
from jaxdistill.data.transforms import views as views_lib
from jaxdistill.networks import graph
from jaxdistill.study import teacher_cache
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.study.plans import Plan, Row, Views
from jaxdistill.training.distributed import sharding
from jaxdistill.training.options import Interrupted

FOLDER = 'teacher_outputs'
# The number of images for which the teacher runs at a time.
_BATCH = 128
# The largest difference between stored and recomputed outputs, as a share of
# the largest output of an image. Rounding to float16 alone gives up to 2**-11.
_TOLERANCE = 2**-8

# (variables, batch with the column `VIEW`) -> outputs `[B, ...]`.
Outputs = Callable[[Variables, dict[str, Any]], Array]


def column(
  plan: Plan,
  row: Row,
  teacher: Model,
  workdir: pathlib.Path,
  *,
  say: Callable[[str], None],
  interrupted: Callable[[], bool],
) -> Any:
  """Returns the teacher's outputs for a row, which are computed if necessary.

  Args:
    plan: what is run.
    row: a row with views.
    teacher: the teacher, with its variables.
    workdir: the work directory.
    say: prints a line.
    interrupted: () -> whether to stop.

  Returns:
    The outputs `[N, per_image, ...]`: an array; or a `StoredColumn`, if the
    images are streamed.

  Raises:
    Interrupted: the run was asked to stop. Files that are complete remain.
    UsageError: an output is not finite in the type of the files, a file cannot
      be written or read, or the files hold other outputs than the teacher's.
  """
  views = row.views
  assert views is not None
  folder = workdir / FOLDER / _key(plan, row, teacher)
  shape, dtype = views.outputs.shape, np.dtype(views.outputs.dtype)
  stored = StoredColumn(folder, shape, dtype)
  split = plan.dataset.splits[views.subset]
  outputs = _compiled(plan, views, teacher)
  begun, missing = time.monotonic(), stored.missing()
  for number, rows in missing.items():
    computed = _computed(outputs, teacher, split, rows, views, interrupted)
    _check_rounding(computed, np.dtype(np.float16) if views.top else dtype)
    if views.top is not None:
      computed = top_scores.packed(computed, views.top)
    stored.write(number, computed)
  if missing:
    say(
      f"{row.label}: stored the teacher's outputs, "
      f'{teacher_cache.words(stored.nbytes)}, in '
      f'{time.monotonic() - begun:.1f} s'
    )
  _check_stored(outputs, teacher, split, stored, views)
  return stored if streaming.is_lazy(split) else stored[:]


def _key(plan: Plan, row: Row, teacher: Model) -> str:
  """Returns a name for everything that the outputs depend on."""
  views, resolved = row.views, workdir_lib.without_places(row.resolved)
  assert views is not None
  sections = ('teacher', 'data', 'augment')
  about = {
    **{k: v for k, v in resolved.items() if k.partition('.')[0] in sections},
    'standardized': [
      [*map(float, x)] for x in (plan.dataset.mean, plan.dataset.std)
    ],
    'subset': views.subset,
    'shape': views.outputs.shape,
    'dtype': str(views.outputs.dtype),
    **({} if views.top is None else {'top': views.top}),
  }
  content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
  leaves = jax.tree_util.tree_leaves_with_path(teacher.variables)
  for path, leaf in leaves:
    content.update(jax.tree_util.keystr(path).encode())
    content.update(np.ascontiguousarray(leaf).tobytes())
  return content.hexdigest()[:16]


def _compiled(plan: Plan, views: Views, teacher: Model) -> Outputs:
  """Returns the function that makes views and runs the teacher."""
  network = teacher.network
  prepare = augment_lib.chain(
    views_lib.fixed(views.augment),
    augment_lib.standardize(plan.dataset.mean, plan.dataset.std),
  )

  @jax.jit
  def outputs(variables: Variables, batch: Batch) -> Array:
    image = prepare(jax.random.key(0), batch)['image']
    with sharding.on_one_device():
      features, _ = graph.run(network, variables, {'image': image})
    computed = features[graph.main_output(network)].astype(jnp.float32)
    if views.top is None:
      return computed
    return top_scores.truncated(computed, views.top)

  return outputs


def _computed(
  outputs: Outputs,
  teacher: Model,
  split: Mapping[str, Any],
  rows: range,
  views: Views,
  interrupted: Callable[[], bool],
) -> np.ndarray:
  """Returns the outputs `[len(rows), count, ...]` of some images in float32."""
  size = min(_BATCH, len(split['image']))
  batches = []
  for start in range(rows.start, rows.stop, size):
    if interrupted():
      raise Interrupted("stopped while the teacher's outputs were stored")
    # The last batch repeats an image instead of being shorter, because another
    # shape would have to be compiled.
    chosen = np.minimum(np.arange(start, start + size), rows.stop - 1)
    batch = {name: x[chosen] for name, x in split.items()}
    of_views = [
      outputs(teacher.variables, {**batch, views_lib.VIEW: np.full(size, i)})
      for i in range(views.per_image)
    ]
    batches.append(np.stack(jax.device_get(of_views), 1)[: rows.stop - start])
  return np.concatenate(batches)


def _check_rounding(values: np.ndarray, dtype: np.dtype[Any]) -> None:
  """Checks that the type of the files can hold outputs `[N, count, ...]`."""
  values = values.reshape(-1, *values.shape[2:])
  with np.errstate(over='ignore', invalid='ignore'):
    worst = _difference(values.astype(dtype), values)
  if not worst <= _TOLERANCE:
    raise UsageError(
      f'cache_teacher: expected outputs of the teacher that {dtype} can hold, '
      'got NaN, very large or very small ones; set cache_teacher=False'
    )


def _check_stored(
  outputs: Outputs,
  teacher: Model,
  split: Mapping[str, Any],
  stored: Any,
  views: Views,
) -> None:
  """Computes some outputs again and compares them with the stored ones."""
  size = min(_BATCH, len(split['image']))
  rows = np.linspace(0, len(stored) - 1, size).astype(int)
  view = np.arange(size) % stored.shape[1]
  batch = {name: x[rows] for name, x in split.items()}
  expected = jax.device_get(
    outputs(teacher.variables, {**batch, views_lib.VIEW: view})
  )
  read = stored[rows][np.arange(size), view]
  if views.top is not None:
    read = np.asarray(top_scores.unpacked(jnp.asarray(read), views.top))
  worst = _difference(read, expected)
  if not worst <= _TOLERANCE:
    raise UsageError(
      f"{stored.folder}: expected the teacher's outputs, got numbers that "
      f'differ from them by {100 * worst:.1f} %; delete this folder'
    )


def _difference(outputs: np.ndarray, expected: np.ndarray) -> float:
  """Returns the largest difference of outputs `[N, ...]`; NaN if one is NaN.

  It is a share of the largest expected output of an image.
  """
  differences, sizes = (
    np.abs(x.astype(np.float32)).reshape(len(x), -1).max(-1)
    for x in (outputs - expected, expected)
  )
  return float((differences / np.maximum(sizes, 1e-30)).max())
