"""Seeds that train together end as if each had trained alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import methods, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Phase, Stage, Stream
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification
from jaxdistill.training import lanes, loop
from jaxdistill.training import log as log_lib

SEEDS = (0, 1, 2)


def log_of(directory, seed):
  return log_lib.Log(directory, labels={'seed': seed}, show=False)


def together(method, carries, dataset, directory=None, **options):
  """Returns seed -> outcome, trained together."""
  each = {
    seed: loop.FitOptions(
      directory=directory and str(directory / str(seed)),
      log=log_of(directory, seed),
      **options,
    )
    for seed in carries
  }
  group = loop.FitOptions(
    directory=directory and str(directory / 'together'),
    log=log_lib.Log(show=False),
    **options,
  )
  runs = {
    seed: loop.Run(method, carry, seed, each[seed])
    for seed, carry in carries.items()
  }
  return loop.fit_runs(runs, dataset, group)


def one_by_one(method, carries, dataset, directory=None, **options):
  """Returns seed -> result of seeds that share a program; compiles faster."""
  programs, results = loop.Programs(), {}
  for seed, carry in carries.items():
    own = loop.FitOptions(log=log_of(directory, seed), **options)
    run = loop.Run(method, carry, seed, own)
    results |= loop.fit_runs({seed: run}, dataset, own, programs)
  return results


def alone(method, carries, dataset, directory=None, **options):
  """Returns seed -> result, trained one after the other by `fit`."""
  return {
    seed: loop.fit(
      method,
      carry,
      dataset,
      seed=seed,
      options=loop.FitOptions(log=log_of(directory, seed), **options),
    )
    for seed, carry in carries.items()
  }


def walk(num_steps=6, **changes) -> Phase:
  """A phase that adds random numbers and the mean of its images to `w`."""

  def init(rng, carry):
    return {'w': jax.random.normal(rng) + carry['start']}, {'by': carry['by']}

  def step(state, frozen, batches, rng, static):
    del static
    mean = batches['train']['image'].mean()
    w = state['w'] + frozen['by'] * (jax.random.normal(rng) + mean)
    return {'w': w}, {'loss': w}

  def finish(state, frozen, carry):
    del frozen
    return {**carry, 'start': state['w'], 'steps': state['w']}

  streams = {'train': Stream(8, augment.standardize((100.0,), (50.0,)))}
  phase = Phase('walk', num_steps, streams, init, step, finish)
  return phase._replace(**changes)


def starts(by=None):
  """A carry for each seed; `by` is what multiplies its steps."""
  by = by or dict.fromkeys(SEEDS, 1.0)
  return {
    seed: {'start': jnp.float32(seed), 'by': jnp.float32(by[seed])}
    for seed in SEEDS
  }


def last(outcomes):
  return {seed: float(x.carry['start']) for seed, x in outcomes.items()}


def records_of(directory, seed):
  records = log_lib.read_records(directory / 'metrics.jsonl')
  return [record for record in records if record['seed'] == seed]


def numbers(records):
  return [
    {k: v for k, v in x.items() if not isinstance(v, str)} for x in records
  ]


def assert_same(some, others):
  """Checks that results agree up to rounding."""
  for one, other in zip(some.values(), others.values(), strict=True):
    for role in ('student', 'teacher'):
      jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-5),
        one.carry[role].variables,
        other.carry[role].variables,
      )
    assert one.best_step == other.best_step
    assert one.steps == other.steps


def assert_equal(one, other):
  """Checks that two results have the same bits."""
  jax.tree.map(
    *(np.testing.assert_array_equal, one.carry['student'].variables),
    other.carry['student'].variables,
  )


def network(width):
  return Network(
    (
      Stage('stem', layers.ConvUnit(width)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3, dropout=0.3)),
    )
  )


@pytest.fixture(scope='module')
def augmented(dataset):
  return recipes.recipe(
    dataset,
    classification(),
    epochs=2,
    batch_size=8,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
    augment=augment.crop_flip(padding=2),
  )


@pytest.fixture(scope='module')
def carries(augmented):
  def model(width, seed):
    image = {'image': augmented.example['image']}
    variables = graph.init(network(width), jax.random.key(seed), image)
    return Model(network(width), variables)

  teacher = model(3, 9)
  return {
    seed: {'student': model(2, seed), 'teacher': teacher} for seed in SEEDS[:2]
  }


def options():
  def evaluate(model):
    head = jax.tree.leaves(model.variables['params']['head'])
    return {'top1': float(jnp.sum(head[0]))}

  return {'evaluate': evaluate, 'log_every': 2}


@pytest.fixture
def mapped(monkeypatch):
  """Maps the program over seeds, as on GPUs; this compiles faster, too."""
  monkeypatch.setattr(lanes, 'are_mapped', lambda: True)


def test_seeds_together_are_seeds_apart(
  augmented, carries, dataset, tmp_path, mapped
):
  """With batch norm, dropout, augmentation and orders of their own."""
  method = methods.kd(augmented)
  apart = tmp_path / 'apart'
  expected = one_by_one(method, carries, dataset, apart, **options())
  results = together(
    *(method, carries, dataset, tmp_path),
    **options(),
    steps_per_call=2,
  )
  assert_same(results, expected)
  for seed in carries:
    ours, theirs = records_of(tmp_path, seed), records_of(apart, seed)
    assert [(r['step'], r['split']) for r in ours] == [
      (r['step'], r['split']) for r in theirs
    ]
    for one, other in zip(numbers(ours), numbers(theirs)):
      assert one == pytest.approx(other, rel=2e-3, abs=2e-5)


def test_methods_of_several_phases_train_together(
  augmented, carries, dataset, mapped
):
  method = methods.sskd(
    augmented._replace(epochs=1),
    cut=(('stem', 'stem'),),
    stage_epochs=0.7,
    head_epochs=0,
    statistics_steps=2,
  )
  carries = {
    seed: {**carry, 'teacher': carries[0]['student']}
    for seed, carry in carries.items()
  }
  assert_same(
    together(method, carries, dataset), one_by_one(method, carries, dataset)
  )


def test_a_run_stopped_in_the_middle_ends_with_the_same_bits(dataset, tmp_path):
  def run(directory, interrupted):
    method = (lambda carry: walk(), lambda carry: walk(2, name='again'))
    return together(
      method,
      starts(),
      dataset,
      directory,
      interrupted=interrupted,
      checkpoint_seconds=0.0,
      log_every=2,
    )

  whole = run(tmp_path / 'whole', lambda: False)
  calls = iter(range(100))
  with pytest.raises(loop.Interrupted):
    run(tmp_path / 'parts', lambda: next(calls) >= 3)
  assert last(run(tmp_path / 'parts', lambda: False)) == last(whole)
  for seed in SEEDS:
    records = [records_of(tmp_path / x, seed) for x in ('whole', 'parts')]
    assert records[0] == records[1]
    assert len(records[0]) == 4


def test_a_finished_group_is_read_and_not_trained_again(dataset, tmp_path):
  method = (lambda carry: walk(),)
  first = together(method, starts(), dataset, tmp_path)

  def forbidden(carry):
    raise AssertionError

  again = together((forbidden,), starts(), dataset, tmp_path)
  assert last(again) == last(first)
  assert not (tmp_path / 'together/checkpoints0').exists()


def test_a_seed_that_diverges_leaves_the_others_as_they_are(dataset, tmp_path):
  def method(names):
    return tuple(lambda carry, name=name: walk(name=name) for name in names)

  both = method(['first', 'second'])
  by = {0: 1.0, 1: float('inf'), 2: 1.0}
  outcomes = together(both, starts(by), dataset, tmp_path, log_every=2)
  assert isinstance(outcomes[1], loop.NonFiniteLossError)
  assert 'not finite at step' in str(outcomes[1])
  assert "of phase 'first'" in str(outcomes[1])
  expected = alone(both, {s: starts()[s] for s in (0, 2)}, dataset, log_every=2)
  for seed, result in expected.items():
    np.testing.assert_allclose(
      outcomes[seed].carry['start'], result.carry['start'], rtol=1e-5
    )
    assert outcomes[seed].steps == 12
  assert not (tmp_path / '1/phase0.safetensors').exists()
  # A resumed run knows which seed has diverged, and does not try it again.
  again = together(both, starts(by), dataset, tmp_path, log_every=2)
  assert str(again[1]) == str(outcomes[1])
  assert again[0].carry['start'] == outcomes[0].carry['start']


def test_all_seeds_may_diverge(dataset):
  by = dict.fromkeys(SEEDS, float('inf'))
  outcomes = together((lambda carry: walk(),), starts(by), dataset)
  assert all(isinstance(x, loop.NonFiniteLossError) for x in outcomes.values())


def test_each_seed_ends_its_phase_by_its_own_rule(dataset, tmp_path):
  """Such as that of a plateau; the others go on."""

  def stop(state):
    return float(state['w']) > 1.5

  method = (lambda carry: walk(20, stop=stop, stop_every=1),)
  by = {0: 0.1, 1: 0.1, 2: 0.1}
  results = together(method, starts(by), dataset, tmp_path, log_every=4)
  expected = alone(method, starts(by), dataset, tmp_path / 'apart', log_every=4)
  steps = {seed: result.steps for seed, result in expected.items()}
  assert len({*steps.values()}) > 1
  assert {seed: result.steps for seed, result in results.items()} == steps
  for seed in SEEDS:
    np.testing.assert_allclose(
      results[seed].carry['start'], expected[seed].carry['start'], rtol=1e-5
    )
    ours, theirs = (records_of(x, seed) for x in (tmp_path, tmp_path / 'apart'))
    for one, other in zip(numbers(ours), numbers(theirs), strict=True):
      assert one == pytest.approx(other, rel=1e-5)


def test_other_seeds_cannot_continue_a_group(dataset, tmp_path):
  method = (lambda carry: walk(),)
  with pytest.raises(loop.Interrupted):
    together(method, starts(), dataset, tmp_path, interrupted=lambda: True)
  two = {seed: starts()[seed] for seed in (0, 1)}
  with pytest.raises(UsageError, match=r'expected the seeds \[0, 1, 2\]'):
    together(method, two, dataset, tmp_path)


def test_phases_of_other_lengths_train_one_after_the_other(dataset):
  method = (lambda carry: walk(3 + int(carry['start'])),)
  results = together(method, starts(), dataset)
  assert [results[seed].steps for seed in SEEDS] == [3, 4, 5]
  assert last(results) == last(alone(method, starts(), dataset))


@pytest.mark.parametrize('name', ['w', 'by'])
def test_states_of_other_shapes_are_refused_in_one_line(name, dataset):
  def method(carry):
    sizes = {'w': 1, 'by': 1, name: 1 + int(carry['start'])}
    state, frozen = ({key: jnp.zeros(sizes[key])} for key in ('w', 'by'))
    return walk(init=lambda rng, carry: (state, frozen))

  with pytest.raises(
    UsageError, match=r"phase 'walk', .*together=False, and if"
  ):
    together((method,), starts(), dataset)


@pytest.mark.parametrize('needs_values', [False, True])
def test_seeds_one_by_one_share_programs_that_need_no_values(
  needs_values, dataset
):
  traced = []

  def build(carry):
    factor = carry['by'] + 0.0 if needs_values else 1.0

    def step(state, frozen, batches, rng, static):
      del frozen, static, batches, rng
      traced.append(1)
      return {'w': state['w'] * factor + 1.0}, {'loss': state['w']}

    return walk(3, step=step)

  carries = starts({0: 2.0, 1: 3.0, 2: 4.0})
  programs, results, counts = loop.Programs(), {}, []
  for seed, carry in carries.items():
    options = loop.FitOptions(log=log_lib.Log(show=False))
    run = loop.Run((build,), carry, seed, options)
    results |= loop.fit_runs({seed: run}, dataset, options, programs)
    counts.append(len(traced))
  assert (counts[0] == counts[-1]) is not needs_values
  assert last(results) == last(alone((build,), carries, dataset))


def test_a_step_that_captures_values_of_its_seed_keeps_them(dataset):
  """The program takes them as arguments."""

  def build(carry):
    by = carry['by']

    def step(state, frozen, batches, rng, static):
      del frozen, static, batches, rng
      return {'w': state['w'] * by}, {'loss': state['w']}

    return walk(2, step=step)

  carries = starts({0: 2.0, 1: 3.0, 2: 4.0})
  results = together((build,), carries, dataset)
  assert last(results) == last(alone((build,), carries, dataset))


def test_trials_that_differ_in_numbers_share_one_program(
  augmented, carries, dataset, monkeypatch
):
  """Such as weights, temperatures and the numbers of optimizers."""
  steps, jit = set(), lanes._compiled
  monkeypatch.setattr(
    *(lanes, '_compiled', lambda step, *a: steps.add(step) or jit(step, *a))
  )
  trials = {
    f'trial {i}': methods.kd(
      augmented._replace(
        optimizer=optimizers.sgd(
          optimizers.cosine(rate=rate, warmup=0.1), weight_decay=decay
        )
      ),
      temperature=temperature,
      weight=weight,
    )
    for i, (rate, decay, temperature, weight) in enumerate(
      ((0.02, 0.001, 1.0, 0.5), (0.1, 0.01, 4.0, 0.9))
    )
  }
  own = loop.FitOptions(log=log_lib.Log(show=False), **options())
  runs = {
    name: loop.Run(method, carries[0], 7, own)
    for name, method in trials.items()
  }
  programs = loop.Programs(trials.values())
  one_by_one = {
    name: loop.fit_runs({name: run}, dataset, own, programs)[name]
    for name, run in runs.items()
  }
  assert len(steps) == 1
  in_turn = loop.fit_runs(runs, dataset, own)
  assert len(steps) == 2
  for name in trials:
    assert_equal(one_by_one[name], in_turn[name])
  monkeypatch.setattr(lanes, 'are_mapped', lambda: True)
  assert_same(in_turn, loop.fit_runs(runs, dataset, own))
  assert len(steps) == 3
  name = 'trial 1'
  alone = loop.fit(*(trials[name], carries[0], dataset), seed=7, options=own)
  assert_same({name: in_turn[name]}, {name: alone})
  with pytest.raises(AssertionError):
    assert_same({name: in_turn['trial 0']}, {name: alone})


def test_trials_of_other_lengths_or_shapes_train_in_programs_of_their_own(
  dataset, tmp_path
):
  def sized(size, num_steps):
    def init(rng, carry):
      del carry
      return {'w': jax.random.normal(rng, (size,))}, {'by': jnp.ones(size)}

    def step(state, frozen, batches, rng, static):
      del batches, rng, static
      return {'w': state['w'] + frozen['by']}, {'loss': state['w'].sum()}

    return (lambda carry: walk(num_steps, init=init, step=step),)

  trials = {'a': sized(1, 2), 'b': sized(1, 3), 'c': sized(2, 2)}

  def run(directory, interrupted=lambda: False):
    group = loop.FitOptions(
      directory=str(directory / 'group'),
      interrupted=interrupted,
      checkpoint_seconds=0.0,
    )
    runs = {
      name: loop.Run(
        method, {}, 0, group._replace(directory=str(directory / name))
      )
      for name, method in {**trials, 'd': trials['b']}.items()
    }
    return loop.fit_runs(runs, dataset, group)

  whole = run(tmp_path / 'whole')
  assert [result.steps for result in whole.values()] == [2, 3, 2, 3]
  for name in trials:
    alone = loop.fit(trials[name], {}, dataset)
    np.testing.assert_array_equal(
      whole[name].carry['start'], alone.carry['start']
    )
  calls = iter(range(100))
  with pytest.raises(loop.Interrupted):
    run(tmp_path / 'parts', lambda: next(calls) >= 4)
  again = run(tmp_path / 'parts')
  for name, result in again.items():
    np.testing.assert_array_equal(
      result.carry['start'], whole[name].carry['start']
    )


def adding(rate, num_steps, **metrics):
  """A method that adds a rate to `w` in each step."""

  def step(state, frozen, batches, rng, static):
    del frozen, batches, rng, static
    return {'w': state['w'] + rate}, {'loss': state['w'], **metrics}

  return (lambda carry: walk(num_steps, step=step),)


def test_trials_that_train_one_after_the_other_keep_their_own_programs(dataset):
  """Their models have the same shapes."""
  own = loop.FitOptions(log=log_lib.Log(show=False))
  trials = {'a': adding(1.0, 2), 'b': adding(10.0, 3)}
  runs = {
    name: loop.Run(method, starts()[0], 0, own)
    for name, method in trials.items()
  }
  results = loop.fit_runs(runs, dataset, own)
  alone = {
    name: loop.fit(method, starts()[0], dataset, options=own)
    for name, method in trials.items()
  }
  assert last(results) == last(alone)


def test_trials_with_other_metrics_are_refused_together(dataset):
  own = loop.FitOptions(log=log_lib.Log(show=False))
  runs = {
    name: loop.Run(method, starts()[0], 0, own)
    for name, method in (
      ('a', adding(1.0, 2, kd=jnp.ones(()))),
      ('b', adding(2.0, 2)),
    )
  }
  with pytest.raises(UsageError, match=r'metrics .* got kd, loss and loss;'):
    loop.fit_runs(runs, dataset, own)


def test_the_last_run_may_fail_after_others_have_ended(dataset, tmp_path):
  """It fails when a checkpoint is due."""

  def until(end, bad):
    def step(state, frozen, batches, rng, static):
      del frozen, batches, rng, static
      w = state['w'] + 1
      return {'w': jnp.where(w > bad, jnp.nan, w)}, {'loss': jnp.zeros(())}

    phase = walk(
      init=lambda rng, carry: ({'w': jnp.zeros(())}, {}),
      step=step,
      stop=lambda state: bool(state['w'] >= end),
      stop_every=1,
    )
    return (lambda carry: phase,)

  def place(name):
    return loop.FitOptions(
      directory=str(tmp_path / name),
      checkpoint_seconds=0.0,
      log=log_lib.Log(show=False),
    )

  runs = {
    name: loop.Run(until(end, bad), {}, 0, place(name))
    for name, end, bad in (('ends', 2, 9), ('fails', 9, 3))
  }
  results = loop.fit_runs(runs, dataset, place('group'))
  assert float(results['ends'].carry['start']) == 2
  assert isinstance(results['fails'], loop.NonFiniteLossError)
