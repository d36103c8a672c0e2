"""The keys of a config: their types, their defaults, and their first checks.

This module imports neither JAX nor any other heavy package, so that a wrong key
or number is refused at once.
"""

from collections.abc import Mapping, Sequence
import typing
from typing import Any, Literal, NamedTuple

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.study import values

# {'name': ..., arguments}: a call of the function that has this name.
RawSection = Mapping[str, Any]


class Settings(NamedTuple):
  """The keys of a config with their defaults.

  A section with `{'name': ...}` stands for a call of the function that
  `registry.py` gives this name, or of 'my_file:my_function'. Its other keys are
  the arguments of that function.

  Attributes:
    data: the data set.
    student: the student's network.
    teacher: the teacher's network. Under 'training', it may hold any of the
      keys from `augment` to `epochs`, a 'seed' and a 'method' that needs no
      teacher ('supervised' by default), and under 'initial' other initial
      weights. For a trained teacher, 'checkpoint' names a work directory or a
      file of this library, or 'weights' a file of PyTorch tensors; 'joined' is
      a list of sections of trained teachers, whose vectors are standardised and
      joined. None if no row needs a teacher.
    method: the only row. Like every row, it may hold any of the keys from
      `augment` to `epochs`, which then apply to this row,
      and a 'sweep', see `sweeps`.
    methods: label -> row; give either `method` or `methods`.
    task: what the labels mean; classification by default.
    initial: gives the student other initial weights.
    augment: changes training images at random; 'none' by default.
    optimizer: 'sgd' by default.
    schedule: the learning rate; 'cosine' by default.
    subset: the split to train on, such as 'train' or 'train_subset'.
    batch_size: the number of examples in a batch, over all devices.
    epochs: passes over the subset.
    seeds: the number of seeds, which are then 0, 1, ..., or a sequence of
      seeds.
    together: whether the seeds of a row, and rows or trials of a sweep that
      differ only in floating-point numbers, train side by side in one program,
      on one device. This is meant for small networks on a GPU.
    cache_teacher: for how many views (augmented versions) of each training
      image the teacher's outputs are computed once and stored. True: 8, or 1 if
      the augmentation is not random; 'auto': 1 if it is not random and this
      saves time; False: the teacher runs in each step. Students of stored
      outputs train on these views only.
    cache_top_k: how many of the largest scores of classes are stored of each
      view; None: the outputs as they are.
    evaluate_every: epochs between two evaluations on the validation split.
    log_every: steps between two records of the training metrics.
    checkpoint_seconds: the shortest time in seconds between two checkpoints.
    workers: the number of processes that decode streamed images; None chooses a
      number that suits the machine.
    steps_per_call: training steps in one call of the compiled program; None
      means 1 on CPUs and 10 elsewhere.
    trackers: services that get the numbers of the training log, besides
      TensorBoard: 'wandb', 'mlflow', 'trackio', or your own.
  """

  data: RawSection
  student: RawSection
  teacher: RawSection | None = None
  method: RawSection | None = None
  methods: Mapping[Any, RawSection] | None = None
  task: RawSection | None = None
  initial: RawSection | None = None
  augment: RawSection | None = None
  optimizer: RawSection | None = None
  schedule: RawSection | None = None
  subset: str = 'train'
  batch_size: int = 64
  epochs: float = 240
  seeds: int | Sequence[int] = 1
  together: bool = False
  cache_teacher: bool | int | Literal['auto'] = False
  cache_top_k: int | None = None
  evaluate_every: int = 1
  log_every: int = 50
  checkpoint_seconds: float = 60.0
  workers: int | None = None
  steps_per_call: int | None = None
  trackers: Sequence[RawSection] = ()


FIELDS: dict[str, Any] = typing.get_type_hints(Settings)
# The keys that a row, and the training of the teacher, may hold too.
RECIPE_KEYS = (
  *('epochs', 'batch_size', 'augment', 'optimizer', 'schedule', 'subset'),
)
RECIPE_FIELDS = {key: FIELDS[key] for key in RECIPE_KEYS}
# The most seeds of a row.
MOST_SEEDS = 1000
# The most views of an image whose outputs are stored.
MOST_VIEWS = 1000
# The function that a section means if it holds no 'name'.
DEFAULT_NAMES = {
  'task': 'classification',
  'augment': 'none',
  'optimizer': 'sgd',
  'schedule': 'cosine',
}


def check(config: Mapping[str, Any]) -> Settings:
  """Checks the keys of a config, their types and their numbers.

  Args:
    config: the config as a plain mapping.

  Raises:
    UsageError: a key is unknown or missing, or a value is invalid.
  """
  keys = values.check_keys(config, FIELDS, '')
  for key in ('data', 'student'):
    if key not in keys:
      raise UsageError(f'the config needs the key {key!r}')
  settings = Settings(**keys)
  if (settings.method is None) == (settings.methods is None):
    raise UsageError("the config needs either 'method' or 'methods'")
  check_recipe_numbers(keys, '')
  check_seeds('seeds', settings.seeds)
  check_cache_teacher(settings.cache_teacher, settings.cache_top_k)
  checks.integer('evaluate_every', settings.evaluate_every)
  checks.integer('log_every', settings.log_every)
  checks.number('checkpoint_seconds', settings.checkpoint_seconds, at_least=0)
  if settings.workers is not None:
    checks.integer('workers', settings.workers, at_least=0, at_most=1000)
  if settings.steps_per_call is not None:
    checks.integer('steps_per_call', settings.steps_per_call, at_most=10_000)
  return settings


def check_cache_teacher(
  value: bool | int | str, top_k: int | None = None
) -> None:
  """Checks the keys `cache_teacher` and `cache_top_k`.

  Raises:
    UsageError: the first is not True, False, 'auto' or a number of views; the
      second is not a number of scores, or nothing is stored.
  """
  values.check('cache_teacher', value, FIELDS['cache_teacher'])
  if not isinstance(value, (bool, str)):
    checks.integer('cache_teacher', value, at_most=MOST_VIEWS)
  if top_k is not None:
    checks.integer('cache_top_k', top_k)
    if value is False:
      raise UsageError(
        'cache_top_k: expected cache_teacher with it, got cache_teacher=False'
      )


def check_recipe_numbers(keys: Mapping[str, Any], prefix: str) -> None:
  """Checks the numbers among the keys of a recipe.

  Args:
    keys: the keys of the config or of a row.
    prefix: what comes before a key in a message, such as 'methods.kd.'.

  Raises:
    UsageError: a number is out of its range.
  """
  if 'epochs' in keys:
    checks.number(f'{prefix}epochs', keys['epochs'], above=0)
  if 'batch_size' in keys:
    checks.integer(f'{prefix}batch_size', keys['batch_size'])


def check_seeds(where: str, seeds: int | Sequence[int]) -> tuple[int, ...]:
  """Returns the seeds that a count or a sequence stands for.

  Raises:
    UsageError: there are none, one is repeated, or one is not an integer in
      [0, 2**32).
  """
  if isinstance(seeds, int):
    chosen = tuple(range(min(seeds, MOST_SEEDS + 1)))
  else:
    chosen = tuple(seeds)
  are_seeds = all(0 <= seed < 1 << 32 for seed in chosen)
  are_different = len(set(chosen)) == len(chosen) <= MOST_SEEDS
  if not chosen or not are_seeds or not are_different:
    raise UsageError(
      f'{where}: expected a count from 1 to {MOST_SEEDS} or a list of '
      f'different whole numbers from 0 to 2**32 - 1, got {seeds!r}'
    )
  return chosen


def with_default_name(key: str, section: RawSection | None) -> dict[str, Any]:
  """Returns a section that may lack its name, with the default name."""
  return {'name': DEFAULT_NAMES[key], **(section or {})}
