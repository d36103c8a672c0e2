"""A run that was stopped goes on to the same end, bit for bit."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import evaluation, optimizers, recipes
from jaxdistill.data import augment
from jaxdistill.methods import joint
from jaxdistill.networks import layers, staged
from jaxdistill.training import checkpoint, loop
from jaxdistill.training import log as log_lib
from jaxdistill.types import Model, Network, Phase, Stage, Stream, UsageError

STEPS = 6


class RecordingLog(log_lib.Log):
  """Keeps what is said."""

  def __init__(self, directory):
    super().__init__(directory, name='row', labels={'row': 'a'}, show=False)
    self.said = []

  def say(self, text):
    self.said.append(text)


def after(count):
  """Says to stop when it was asked `count` times before."""
  asked = iter(range(10**6))
  return lambda: next(asked) >= count


def run(method, carry, dataset, directory, stop=10**6, **options):
  """(what the run ends with, its log); Interrupted after `stop` steps."""
  log = RecordingLog(directory)
  options = {'checkpoint_seconds': 0.0, **options}
  fitted = loop.fit(
    method,
    carry,
    dataset,
    options=loop.Options(
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


def assert_same(ours, theirs):
  """Carries, or fitted runs but for their seconds."""
  if isinstance(ours, loop.Fitted):
    ours, theirs = (x._replace(seconds=0.0) for x in (ours, theirs))
  assert jax.tree.structure(networks_out(ours)) == jax.tree.structure(
    networks_out(theirs)
  )
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    if isinstance(a, jax.Array | np.ndarray):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)
    else:
      assert a == b


def networks_out(tree):
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
    drawn = jax.random.normal(rng, (3,)) + batches['train']['index'][:3]
    w = 0.9 * state['w'] + drawn
    return {'w': w, 'n': state['n'] + 1}, {'loss': (w**2).sum()}

  def finish(state, frozen, carry):
    return {**carry, name: state}

  stream = Stream(8, augment.none())
  phase = Phase(name, num_steps, {'train': stream}, init, step, finish)
  return phase._replace(views={'view': view}, **changes)


def view(state, frozen) -> Model:
  return Model(Network(()), {'params': {'stage': dict(state)}})


def evaluate(model):
  """The first epoch is the best."""
  state = model.variables['params']['stage']
  return {'top1': -int(state['n']), 'sum': float(state['w'].sum())}


NOISY = (lambda carry: noisy('a'), lambda carry: noisy('b'))
START = {'start': jnp.arange(3.0), 'view': jnp.zeros(3)}


@pytest.fixture(scope='module')
def uninterrupted(dataset, tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole')
  fitted, log = run(NOISY, START, dataset, directory, evaluate=evaluate)
  assert log.said == []
  return fitted, records_of(directory)


@pytest.mark.parametrize('stop', [0, 1, 4, 6, 7, 11])
def test_a_run_goes_on_bit_for_bit_from_any_step(
  dataset, tmp_path, uninterrupted, stop
):
  interrupt(NOISY, START, dataset, tmp_path, stop, evaluate=evaluate)
  fitted, log = run(NOISY, START, dataset, tmp_path, evaluate=evaluate)
  assert_same(fitted, uninterrupted[0])
  assert records_of(tmp_path) == uninterrupted[1]
  assert log.said == []


@pytest.mark.parametrize('stop', [0, 1, 3, 5])
def test_calls_of_several_steps_go_on_bit_for_bit(
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


def test_a_killed_run_repeats_what_it_had_not_saved(
  dataset, tmp_path, uninterrupted
):
  """It dies without a word, with records of steps behind its checkpoint."""
  options = {'evaluate': evaluate}
  interrupt(NOISY, START, dataset, tmp_path, 3, **options)

  def die(model):
    if records_of(tmp_path)[-1]['step'] == STEPS:
      raise KeyboardInterrupt
    return evaluate(model)

  with pytest.raises(KeyboardInterrupt):
    run(
      NOISY,
      START,
      dataset,
      tmp_path,
      evaluate=die,
      checkpoint_seconds=1000.0,
    )
  assert records_of(tmp_path)[-1]['step'] == STEPS
  fitted, _ = run(NOISY, START, dataset, tmp_path, **options)
  assert_same(fitted, uninterrupted[0])
  assert records_of(tmp_path) == uninterrupted[1]


def test_a_finished_run_is_read_and_trains_nothing(
  dataset, tmp_path, uninterrupted
):
  run(NOISY, START, dataset, tmp_path, evaluate=evaluate)
  assert not list((tmp_path / 'run').glob('checkpoints*'))
  fitted, _ = run(NOISY, START, dataset, tmp_path, stop=0, evaluate=evaluate)
  assert_same(fitted, uninterrupted[0])
  # The seconds of all processes count.
  assert fitted.seconds > 0


def test_what_does_not_change_the_result_may_change_on_resuming(
  dataset, tmp_path, uninterrupted
):
  interrupt(NOISY, START, dataset, tmp_path, 4, evaluate=evaluate)
  options = {'evaluate': evaluate, 'checkpoint_seconds': 9.0}
  fitted, _ = run(NOISY, START, dataset, tmp_path, **options)
  assert_same(fitted, uninterrupted[0])


def test_records_of_other_runs_in_the_same_file_stay(dataset, tmp_path):
  other = {'row': 'b', 'order': 9, 'step': 9, 'split': 'train', 'loss': 1.0}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(other) + '\n')
  interrupt(NOISY, START, dataset, tmp_path, 3)
  run(NOISY, START, dataset, tmp_path)
  assert records_of(tmp_path).count(other) == 1


def checkpoints(directory) -> list[pathlib.Path]:
  """Oldest first."""
  found = (directory / 'run' / 'checkpoints0').iterdir()
  return sorted(
    (p for p in found if p.name.isdigit()), key=lambda p: int(p.name)
  )


def truncate(path):
  for file in path.rglob('*'):
    if file.is_file():
      file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bits(path):
  """In every file of arrays."""
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
  interrupt(NOISY, START, dataset, directory, 4, evaluate=evaluate)
  assert [p.name for p in checkpoints(directory)] == ['3', '4']
  return directory


@pytest.mark.parametrize('damage', [truncate, flip_bits, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
  dataset, tmp_path, stopped, uninterrupted, damage
):
  directory = shutil.copytree(stopped, tmp_path / 'copy')
  damage(checkpoints(directory)[-1])
  # It is stopped once more, so that checkpoints follow the damaged one.
  log = RecordingLog(directory)
  options = loop.Options(
    directory=str(directory / 'run'),
    log=log,
    log_every=2,
    evaluate=evaluate,
    checkpoint_seconds=0.0,
    interrupted=after(2),
  )
  with pytest.raises(loop.Interrupted, match='at step 5'):
    loop.fit(NOISY, START, dataset, options=options)
  assert len(log.said) == 1
  assert 'skipped a damaged checkpoint' in log.said[0]
  assert 'checkpoints0/4' in log.said[0]
  fitted, log = run(NOISY, START, dataset, directory, evaluate=evaluate)
  assert log.said == []
  assert_same(fitted, uninterrupted[0])
  assert records_of(directory) == uninterrupted[1]


def test_a_checkpoint_of_other_bits_than_were_saved_is_damaged(
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


def others(monkeypatch, answer):
  """A second process: `answer` makes its numbers of this one's."""
  monkeypatch.setattr(
    checkpoint.hosts, 'gather', lambda *own: np.array([own, answer(own)])
  )


def test_processes_go_on_from_the_newest_checkpoint_that_all_can_read(
  tmp_path, monkeypatch
):
  store = checkpoint.Checkpoints(tmp_path / 'x')
  trees = [{'w': jnp.full(2, float(n))} for n in (1, 2)]
  for n in (1, 2):
    store.save(n, trees[n - 1], {})
  # It does not see the second one yet.
  others(monkeypatch, lambda own: [1, 0, -1, -1] if len(own) > 1 else own)
  assert store.load(trees[0])[::3] == (1, [])
  # It sees it, but cannot read it; then it reads the first.
  said = iter([[1], [0], [0]])
  others(monkeypatch, lambda own: own if len(own) > 1 else next(said))
  step, tree, _, problems = store.load(trees[0])
  assert step == 1
  assert_same(tree, trees[0])
  assert len(problems) == 1
  assert 'x/2: another process cannot read it' in problems[0]
  others(monkeypatch, lambda own: [-1] * 4 if len(own) > 1 else own)
  with pytest.raises(UsageError, match='no checkpoint that all of them see'):
    store.load(trees[0])
  store.close()


def test_no_readable_checkpoint_is_an_error_that_names_the_directory(
  dataset, tmp_path, stopped
):
  directory = shutil.copytree(stopped, tmp_path / 'copy')
  for path in checkpoints(directory):
    truncate(path)
  with pytest.raises(UsageError, match=r'checkpoints0 \(delete it .*/4: .*/3:'):
    run(NOISY, START, dataset, directory, evaluate=evaluate)
  shutil.rmtree(directory / 'run' / 'checkpoints0')
  run(NOISY, START, dataset, directory, evaluate=evaluate)


def test_a_damaged_phase_file_is_named(dataset, tmp_path):
  run(NOISY, START, dataset, tmp_path)
  truncate(tmp_path / 'run')
  with pytest.raises(UsageError, match=r'phase0\.safetensors: not readable'):
    run(NOISY, START, dataset, tmp_path)


@pytest.mark.parametrize('what', ['loss', 'state'])
def test_a_bad_state_is_never_saved(dataset, tmp_path, what):
  """The 5th step goes wrong, in its loss or only in its gradient."""

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
      run((lambda carry: phase,), {}, dataset, tmp_path)
    assert checkpoints(tmp_path)[-1].name == '4'
  assert not (tmp_path / 'run' / 'phase0.safetensors').exists()


def test_the_carry_of_a_finished_phase_survives_whole(dataset, tmp_path):
  """Entries that are new, changed, removed and untouched."""

  def finish(state, frozen, carry):
    rest = {k: v for k, v in carry.items() if k != 'gone'}
    masks = {'stage': {'w': jnp.array([True, False])}}
    return {**rest, 'a': state, 'masks': masks, 'changed': {'x': jnp.ones(1)}}

  method = (lambda carry: noisy('a', finish=finish), NOISY[1])
  carry = {
    **START,
    'gone': {'x': jnp.zeros(1)},
    'changed': {'x': jnp.zeros(1)},
    'same': {'x': jnp.zeros(1)},
  }
  whole, _ = run(method, carry, dataset, tmp_path / 'whole')
  interrupt(method, carry, dataset, tmp_path / 'parts', 8)
  parts, _ = run(method, carry, dataset, tmp_path / 'parts')
  made = {'a', 'b', 'masks', 'changed', 'same'}
  assert set(parts.carry) == made | set(START)
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
  return Model(network, staged.init(network, jax.random.key(seed), image))


def test_a_real_method_resumes_bit_for_bit_over_a_change_of_network(
  dataset, recipe, batch, tmp_path
):
  """Train, drop a stage, distil; with momentum, flips and batch statistics."""
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
      student = staged.splice(out['student'], 'middle', 'middle', nothing)
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
  # In the first phase, and in the second.
  for stop in (2, 2):
    interrupt(*arguments, tmp_path / 'b', stop=stop, evaluate=evaluated)
  parts, _ = run(*arguments, tmp_path / 'b', evaluate=evaluated)
  assert_same(parts, whole)
  student = parts.carry['student']
  assert staged.stage_names(student.network) == ('stem', 'pool', 'head')
  assert student.network == whole.carry['student'].network
  assert set(student.variables['batch_stats']) == {'stem'}
  assert parts.carry['teacher'] is carry['teacher']
  assert records_of(tmp_path / 'b') == records_of(tmp_path / 'a')
  assert list((tmp_path / 'b' / 'tensorboard' / 'row').glob('events*'))
