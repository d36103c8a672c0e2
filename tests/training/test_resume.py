"""A run that was stopped resumes and ends with the same bits."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Phase, Stage, Stream
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import evaluation
from jaxdistill.training import checkpoint, loop
from jaxdistill.training import log as log_lib

STEPS = 6
AT_EVERY_STEP = {'checkpoint_seconds': 0.0}


class RecordingLog(log_lib.Log):
  """Keeps the printed lines."""

  def __init__(self, directory):
    super().__init__(directory, name='row', labels={'row': 'a'}, show=False)
    self.lines = []

  def say(self, text):
    self.lines.append(text)


def after(count):
  """A function that returns False `count` times and True afterwards."""
  calls = iter(range(10**6))
  return lambda: next(calls) >= count


def run(method, carry, dataset, directory, stop=10**6, **options):
  """Returns (result, log); raises Interrupted after `stop` steps.

  Only an interrupted run leaves a checkpoint, unless the options say otherwise.
  """
  log = RecordingLog(directory)
  options = {'checkpoint_seconds': 1000.0, **options}
  fitted = loop.fit(
    method,
    carry,
    dataset,
    options=loop.FitOptions(
      directory=str(directory / 'run'),
      log=log,
      log_every=2,
      interrupted=after(stop),
      **options,
    ),
  )
  return fitted, log


def interrupt(*arguments, **options):
  with pytest.raises(loop.Interrupted):
    run(*arguments, **options)


def assert_same(result, expected):
  """Compares carries, or results without their seconds."""
  if isinstance(result, loop.Fitted):
    result, expected = (
      x._replace(seconds=0.0, costs=()) for x in (result, expected)
    )
  assert jax.tree.structure(without_networks(result)) == jax.tree.structure(
    without_networks(expected)
  )
  leaves = jax.tree.leaves(result), jax.tree.leaves(expected)
  for a, b in zip(*leaves, strict=True):
    if isinstance(a, jax.Array | np.ndarray):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)
    else:
      assert a == b


def without_networks(tree):
  is_model = lambda x: isinstance(x, Model)  # noqa: E731
  return jax.tree.map(
    lambda x: x.variables if is_model(x) else x, tree, is_leaf=is_model
  )


def records_of(directory):
  return log_lib.read_records(directory / 'metrics.jsonl')


def noisy(name, num_steps=STEPS, **changes) -> Phase:
  """A phase whose state depends on its key, batches and the carry."""

  def init(rng, carry):
    start = carry['start'] if name == 'a' else carry['a']['w']
    return {'w': start + jax.random.normal(rng, (3,)), 'n': jnp.int32(0)}, {}

  def step(state, frozen, batches, rng, static):
    change = jax.random.normal(rng, (3,)) + batches['train']['index'][:3]
    w = 0.9 * state['w'] + change
    return {'w': w, 'n': state['n'] + 1}, {'loss': (w**2).sum()}

  def finish(state, frozen, carry):
    return {**carry, name: state}

  stream = Stream(8, augment.none())
  phase = Phase(name, num_steps, {'train': stream}, init, step, finish)
  return phase._replace(eval_models={'model': eval_model}, **changes)


def eval_model(state, frozen) -> Model:
  return Model(Network(()), {'params': {'stage': dict(state)}})


def evaluate(model):
  """Scores with which the first epoch is the best."""
  state = model.variables['params']['stage']
  return {'top1': -int(state['n']), 'sum': float(state['w'].sum())}


NOISY = (lambda carry: noisy('a'), lambda carry: noisy('b'))
START = {'start': jnp.arange(3.0), 'model': jnp.zeros(3)}


@pytest.fixture(scope='module')
def uninterrupted(dataset, tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole')
  options = {'evaluate': evaluate, **AT_EVERY_STEP}
  fitted, log = run(NOISY, START, dataset, directory, **options)
  assert log.lines == []
  return fitted, records_of(directory)


@pytest.mark.parametrize('stop', [0, 1, 4, 6, 7, 11])
def test_a_run_resumed_at_any_step_ends_with_the_same_bits(
  dataset, tmp_path, uninterrupted, stop
):
  interrupt(NOISY, START, dataset, tmp_path, stop, evaluate=evaluate)
  fitted, log = run(NOISY, START, dataset, tmp_path, evaluate=evaluate)
  assert_same(fitted, uninterrupted[0])
  assert records_of(tmp_path) == uninterrupted[1]
  assert log.lines == []


@pytest.mark.parametrize('stop', [0, 1, 3, 5])
def test_a_run_with_several_steps_per_call_ends_with_the_same_bits(
  dataset, tmp_path, uninterrupted, stop
):
  options = {'evaluate': evaluate, 'steps_per_call': 2}
  whole, _ = run(NOISY, START, dataset, tmp_path / 'whole', **options)
  interrupt(NOISY, START, dataset, tmp_path / 'cut', stop, **options)
  fitted, _ = run(NOISY, START, dataset, tmp_path / 'cut', **options)
  assert_same(fitted, whole)
  assert records_of(tmp_path / 'cut') == records_of(tmp_path / 'whole')
  single = uninterrupted[0].carry
  for a, b in zip(jax.tree.leaves(whole.carry), jax.tree.leaves(single)):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_run_may_be_stopped_at_every_step(dataset, tmp_path, uninterrupted):
  for _ in range(2 * STEPS - 1):
    interrupt(NOISY, START, dataset, tmp_path, 1, evaluate=evaluate)
  fitted, _ = run(NOISY, START, dataset, tmp_path, evaluate=evaluate)
  assert_same(fitted, uninterrupted[0])
  assert records_of(tmp_path) == uninterrupted[1]


def test_a_killed_run_repeats_the_steps_after_its_last_checkpoint(
  dataset, tmp_path, uninterrupted
):
  """The file of records already contains these steps."""
  options = {'evaluate': evaluate}
  interrupt(NOISY, START, dataset, tmp_path, 3, **options)

  def die(model):
    if records_of(tmp_path)[-1]['step'] == STEPS:
      raise KeyboardInterrupt
    return evaluate(model)

  with pytest.raises(KeyboardInterrupt):
    run(NOISY, START, dataset, tmp_path, evaluate=die)
  assert records_of(tmp_path)[-1]['step'] == STEPS
  fitted, _ = run(NOISY, START, dataset, tmp_path, **options)
  assert_same(fitted, uninterrupted[0])
  assert records_of(tmp_path) == uninterrupted[1]


def test_a_finished_run_is_read_without_training(
  dataset, tmp_path, uninterrupted
):
  run(NOISY, START, dataset, tmp_path, evaluate=evaluate)
  assert not list((tmp_path / 'run').glob('checkpoints*'))
  fitted, _ = run(NOISY, START, dataset, tmp_path, stop=0, evaluate=evaluate)
  assert_same(fitted, uninterrupted[0])
  # The time of the first process counts.
  assert fitted.seconds > 0


def test_options_that_do_not_change_the_result_may_change_on_resuming(
  dataset, tmp_path, uninterrupted
):
  interrupt(NOISY, START, dataset, tmp_path, 4, evaluate=evaluate)
  options = {'evaluate': evaluate, 'checkpoint_seconds': 9.0}
  fitted, _ = run(NOISY, START, dataset, tmp_path, **options)
  assert_same(fitted, uninterrupted[0])


def test_records_of_other_runs_in_the_same_file_are_kept(dataset, tmp_path):
  other = {'row': 'b', 'order': 9, 'step': 9, 'split': 'train', 'loss': 1.0}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(other) + '\n')
  interrupt(NOISY, START, dataset, tmp_path, 3)
  run(NOISY, START, dataset, tmp_path)
  assert records_of(tmp_path).count(other) == 1


def checkpoints(directory) -> list[pathlib.Path]:
  """The folders of the checkpoints, the oldest first."""
  paths = (directory / 'run' / 'checkpoints0').iterdir()
  return sorted(
    (p for p in paths if p.name.isdigit()), key=lambda p: int(p.name)
  )


def truncate(path):
  for file in path.rglob('*'):
    if file.is_file():
      file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bits(path):
  """Flips bits in every file of arrays."""
  for file in (path / 'tree').rglob('*'):
    if file.is_file() and 'd' in file.parent.name:
      content = bytearray(file.read_bytes())
      content[len(content) // 2] ^= 0xFF
      file.write_bytes(content)


def empty(path):
  shutil.rmtree(path / 'tree')


@pytest.fixture(scope='module')
def stopped(dataset, tmp_path_factory):
  """A directory with two checkpoints, at steps 3 and 4."""
  directory = tmp_path_factory.mktemp('stopped')
  options = {'evaluate': evaluate, **AT_EVERY_STEP}
  interrupt(NOISY, START, dataset, directory, 4, **options)
  assert [p.name for p in checkpoints(directory)] == ['3', '4']
  return directory


@pytest.mark.parametrize('damage', [truncate, flip_bits, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
  dataset, tmp_path, stopped, uninterrupted, damage
):
  directory = shutil.copytree(stopped, tmp_path / 'copy')
  damage(checkpoints(directory)[-1])
  # The run is stopped again, so that new checkpoints follow the damaged one.
  log = RecordingLog(directory)
  options = loop.FitOptions(
    directory=str(directory / 'run'),
    log=log,
    log_every=2,
    evaluate=evaluate,
    interrupted=after(2),
    **AT_EVERY_STEP,
  )
  with pytest.raises(loop.Interrupted, match='at step 5'):
    loop.fit(NOISY, START, dataset, options=options)
  assert len(log.lines) == 1
  assert 'skipped a damaged checkpoint' in log.lines[0]
  assert 'checkpoints0/4' in log.lines[0]
  fitted, log = run(NOISY, START, dataset, directory, evaluate=evaluate)
  assert log.lines == []
  assert_same(fitted, uninterrupted[0])
  assert records_of(directory) == uninterrupted[1]


def test_a_checkpoint_with_a_wrong_checksum_counts_as_damaged(
  tmp_path, monkeypatch
):
  store = checkpoint.Checkpoints(tmp_path / 'x')
  trees = [{'w': jnp.full(2, float(n))} for n in (1, 2)]
  store.save(1, trees[0], {})
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, '_checksum', lambda tree: 0)
    store.save(2, trees[1], {})
  step, tree, _, problems = store.load(trees[0])
  store.close()
  assert step == 1
  assert_same(tree, trees[0])
  assert len(problems) == 1 and 'x/2: its checksum differs' in problems[0]


def second_process(monkeypatch, function):
  """Pretends that there is a second process.

  `function` turns the numbers of this process into those of the second one.
  """
  monkeypatch.setattr(
    checkpoint.hosts,
    'gather',
    lambda *numbers: np.array([numbers, function(numbers)]),
  )


def test_processes_resume_from_the_newest_checkpoint_that_all_can_read(
  tmp_path, monkeypatch
):
  store = checkpoint.Checkpoints(tmp_path / 'x')
  trees = [{'w': jnp.full(2, float(n))} for n in (1, 2)]
  for n in (1, 2):
    store.save(n, trees[n - 1], {})
  # The second process does not see checkpoint 2 yet.
  second_process(monkeypatch, lambda n: [1, 0, -1, -1] if len(n) > 1 else n)
  assert store.load(trees[0])[::3] == (1, [])
  # It sees checkpoint 2 but cannot read it; then it reads checkpoint 1.
  failures = iter([[1], [0], [0]])
  second_process(monkeypatch, lambda n: n if len(n) > 1 else next(failures))
  step, tree, _, problems = store.load(trees[0])
  assert step == 1
  assert_same(tree, trees[0])
  assert len(problems) == 1
  assert 'x/2: another process cannot read it' in problems[0]
  # It sees no checkpoint at all.
  second_process(monkeypatch, lambda n: [-1] * 4 if len(n) > 1 else n)
  with pytest.raises(UsageError, match='none that all processes see'):
    store.load(trees[0])
  store.close()


def test_the_error_without_a_readable_checkpoint_names_the_directory(
  dataset, tmp_path, stopped
):
  directory = shutil.copytree(stopped, tmp_path / 'copy')
  for path in checkpoints(directory):
    truncate(path)
  with pytest.raises(UsageError, match=r'checkpoints0 \(delete it .*/4: .*/3:'):
    run(NOISY, START, dataset, directory, evaluate=evaluate)
  shutil.rmtree(directory / 'run' / 'checkpoints0')
  run(NOISY, START, dataset, directory, evaluate=evaluate)


def test_the_error_of_a_damaged_phase_file_names_it(dataset, tmp_path):
  run(NOISY, START, dataset, tmp_path)
  truncate(tmp_path / 'run')
  with pytest.raises(UsageError, match=r'phase0\.safetensors: expected a saf'):
    run(NOISY, START, dataset, tmp_path)


@pytest.mark.parametrize('what', ['loss', 'state'])
def test_a_bad_state_is_never_saved(dataset, tmp_path, what):
  """Step 5 has a NaN, in its loss or only in its state."""

  def step(state, frozen, batches, rng, static):
    w = state['w'] + 1
    wrong = jnp.where(w == 5, jnp.nan, w)
    return {'w': wrong if what == 'state' else w}, {
      'loss': wrong if what == 'loss' else jnp.zeros(())
    }

  phase = noisy('a', step=step)._replace(
    init=lambda rng, carry: ({'w': jnp.zeros(())}, {})
  )
  message = f"{what} is not finite at step 5 of phase 'a'; last good .*: 4"
  for _ in range(2):  # the second time from step 4
    with pytest.raises(loop.NonFiniteLossError, match=message):
      run((lambda carry: phase,), {}, dataset, tmp_path, **AT_EVERY_STEP)
    assert checkpoints(tmp_path)[-1].name == '4'
  assert not (tmp_path / 'run' / 'phase0.safetensors').exists()


def test_the_carry_of_a_finished_phase_is_restored_completely(
  dataset, tmp_path
):
  """With entries that are new, changed, removed and untouched."""

  def finish(state, frozen, carry):
    kept = {k: v for k, v in carry.items() if k != 'removed'}
    masks = {'stage': {'w': jnp.array([True, False])}}
    return {**kept, 'a': state, 'masks': masks, 'changed': {'x': jnp.ones(1)}}

  method = (lambda carry: noisy('a', finish=finish), NOISY[1])
  carry = {
    **START,
    'removed': {'x': jnp.zeros(1)},
    'changed': {'x': jnp.zeros(1)},
    'same': {'x': jnp.zeros(1)},
  }
  whole, _ = run(method, carry, dataset, tmp_path / 'whole')
  interrupt(method, carry, dataset, tmp_path / 'parts', 8)
  parts, _ = run(method, carry, dataset, tmp_path / 'parts')
  keys = {'a', 'b', 'masks', 'changed', 'same'}
  assert set(parts.carry) == keys | set(START)
  assert_same(parts.carry, whole.carry)
  assert parts.carry['same'] is carry['same']


def network_of(width) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width)),
      Stage('pool', layers.Pool()),
      Stage('middle', layers.Hidden(width)),
      Stage('head', layers.Classifier(3)),
    )
  )


def model_of(width, seed, batch) -> Model:
  network = network_of(width)
  image = {'image': batch['image']}
  return Model(network, graph.init(network, jax.random.key(seed), image))


def test_a_method_that_changes_the_network_resumes_with_the_same_bits(
  dataset, recipe, batch, tmp_path
):
  """It trains, removes a stage and distils, with momentum and batch norm."""
  training = recipes.recipe(
    dataset,
    recipe.task,
    epochs=1,
    batch_size=8,
    augment=augment.flip(),
    optimizer=optimizers.sgd(optimizers.cosine(rate=0.05)),
  )

  def shorten(carry):
    (train,) = joint.supervised(training)

    def finish(state, frozen, carry):
      out = phase.finish(state, frozen, carry)
      nothing = Model(Network(()), {})
      student = graph.splice(out['student'], 'middle', 'middle', nothing)
      return {**out, 'student': student}

    phase = train(carry)
    return phase._replace(finish=finish)

  method = (shorten, *joint.kd(training))
  preprocess = augment.standardize(dataset.mean, dataset.std)

  def evaluated(model):
    split = dataset.splits['validation']
    return evaluation.evaluate(model, split, training.task, preprocess)

  carry = {'student': model_of(2, 0, batch), 'teacher': model_of(3, 1, batch)}
  arguments = (method, carry, dataset)
  whole, _ = run(*arguments, tmp_path / 'a', evaluate=evaluated)
  assert whole.steps == 6
  # Once in the first phase and once in the second.
  for stop in (2, 2):
    interrupt(*arguments, tmp_path / 'b', stop=stop, evaluate=evaluated)
  parts, _ = run(*arguments, tmp_path / 'b', evaluate=evaluated)
  assert_same(parts, whole)
  student = parts.carry['student']
  assert graph.stage_names(student.network) == ('stem', 'pool', 'head')
  assert student.network == whole.carry['student'].network
  assert set(student.variables['batch_stats']) == {'stem'}
  assert parts.carry['teacher'] is carry['teacher']
  assert records_of(tmp_path / 'b') == records_of(tmp_path / 'a')
  assert list((tmp_path / 'b' / 'tensorboard' / 'row').glob('events*'))
