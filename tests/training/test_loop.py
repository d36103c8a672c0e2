"""The loop: what it draws, counts, evaluates, writes and rejects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import methods, phases
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Metric, Model, Network, Phase, Stream
from jaxdistill.data.sources import images
from jaxdistill.data.transforms import augment
from jaxdistill.training import log as log_lib
from jaxdistill.training import loop, phase_run, programs, sources
from jaxdistill.training.distributed import sharding

STREAM = {'train': Stream(8, augment.none())}


def counter(name='counter', num_steps=6, streams=None, **changes) -> Phase:
  """A phase that counts its steps in `w`; step n, from 1, has the loss n."""

  def init(rng, carry):
    del rng, carry
    return {'w': jnp.zeros(())}, {}

  def step(state, frozen, batches, rng, static):
    del frozen, batches, rng, static
    w = state['w'] + 1
    return {'w': w}, {'loss': w, 'double': 2 * w}

  def finish(state, frozen, carry):
    del frozen
    return {**carry, name: state}

  phase = Phase(name, num_steps, streams or {}, init, step, finish)
  return phase._replace(**changes)


def eval_model(state, frozen) -> Model:
  del frozen
  return Model(Network(()), {'params': {'stage': {'w': state['w']}}})


def roles(*names):
  """A carry with an entry for each role, so that best models are kept."""
  return {name: {'w': jnp.zeros(())} for name in names}


def fit(phase, dataset, carry=None, seed=0, **options):
  return loop.fit(
    (lambda carry: phase,),
    roles(*phase.eval_models) if carry is None else carry,
    dataset,
    seed=seed,
    options=loop.FitOptions(**options),
  )


def records_of(directory, split='train'):
  records = log_lib.read_records(directory / 'metrics.jsonl')
  return [r for r in records if r['split'] == split]


def test_phases_run_in_order_and_each_is_built_from_the_carry_before(dataset):
  seen = []

  def make(name):
    def build(carry):
      seen.append((name, sorted(carry)))
      return counter(name, 3)

    return build

  fitted = loop.fit((make('a'), make('b')), {'x': 1}, dataset)
  assert seen == [('a', ['x']), ('b', ['a', 'x'])]
  assert set(fitted.carry) == {'a', 'b', 'x'}
  assert fitted.steps == 6
  assert float(fitted.carry['b']['w']) == 3


def test_the_callers_carry_is_not_changed(dataset):
  carry = {'x': jnp.ones(3)}
  init = lambda rng, carry: ({'w': carry['x'].sum()}, {})  # noqa: E731
  fit(counter(init=init), dataset, carry)
  assert list(carry) == ['x']
  assert not carry['x'].is_deleted()


def test_a_phase_may_begin_with_arrays_of_the_carry(dataset):
  """The loop donates a copy of the state, so the carry keeps its arrays."""
  start = {'w': jnp.asarray(5.0)}
  phase = counter(init=lambda rng, carry: (carry['start'], carry['start']))
  fitted = fit(phase, dataset, {'start': start})
  assert float(start['w']) == 5
  assert float(fitted.carry['counter']['w']) == 11


def test_a_phase_without_streams_draws_only_from_its_key(dataset):
  def step(state, frozen, batches, rng, static):
    assert batches == {}
    value = jax.random.uniform(rng)
    return {'w': state['w'] + value}, {'loss': value}

  def result(seed):
    phase = counter(num_steps=3, step=step)
    return float(fit(phase, dataset, seed=seed).carry['counter']['w'])

  assert result(0) == result(0)
  assert result(0) != result(1)
  # The key of a step depends only on the seed, the phase and the step.
  rng = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
  expected = sum(
    jax.random.uniform(jax.random.fold_in(rng, i)) for i in range(3)
  )
  assert result(0) == pytest.approx(float(expected))


def test_phases_of_one_run_have_different_keys(dataset):
  def step(state, frozen, batches, rng, static):
    return {'w': jax.random.uniform(rng)}, {'loss': state['w']}

  method = tuple(
    lambda carry, n=n: counter(n, 1, step=step) for n in ('a', 'b')
  )
  carry = loop.fit(method, {}, dataset).carry
  assert float(carry['a']['w']) != float(carry['b']['w'])


def indices_seen(dataset, seed=0, carry=None, num_steps=6, **stream):
  """The 'index' of each batch of a run."""

  def init(rng, carry):
    return {'w': jnp.zeros((num_steps, 4), jnp.int32), 'i': jnp.int32(0)}, {}

  def step(state, frozen, batches, rng, static):
    w = state['w'].at[state['i']].set(batches['train']['index'])
    return {'w': w, 'i': state['i'] + 1}, {'loss': jnp.zeros(())}

  streams = {'train': Stream(4, augment.none(), **stream)}
  phase = counter(num_steps=num_steps, streams=streams, init=init, step=step)
  fitted = fit(phase, dataset, carry, seed)
  return np.asarray(fitted.carry['counter']['w'])


def test_an_epoch_of_a_stream_uses_each_example_of_its_subset_once(dataset):
  seen = indices_seen(dataset)
  assert sorted(seen.ravel()) == sorted(dataset.splits['train']['index'])
  held_out = indices_seen(dataset, num_steps=2, subset='validation')
  assert set(held_out.ravel()) <= set(dataset.splits['validation']['index'])


def test_the_seed_determines_the_order_of_examples(dataset):
  first = indices_seen(dataset)
  np.testing.assert_array_equal(first, indices_seen(dataset))
  assert not np.array_equal(first, indices_seen(dataset, seed=1))


def test_a_stream_may_draw_from_the_carry(dataset):
  carry = {'images': {'index': np.arange(100, 112)}}
  seen = indices_seen(dataset, carry=carry, num_steps=3, source='images')
  assert sorted(seen.ravel()) == list(range(100, 112))


@pytest.mark.parametrize(
  ('stream', 'message'),
  [
    ({'subset': 'dev'}, "unknown split of the data 'dev'.*valid: train, "),
    (
      {'source': 'images'},
      "unknown source of batches 'images' .*valid: data, x",
    ),
  ],
)
def test_a_stream_whose_source_does_not_exist_is_rejected(
  dataset, stream, message
):
  with pytest.raises(UsageError, match=message):
    indices_seen(dataset, carry={'x': 1}, **stream)


def test_each_stream_is_augmented_with_its_own_key(dataset):
  def noise(rng, batch):
    return {'image': jax.random.uniform(rng)}

  def step(state, frozen, batches, rng, static):
    values = [batches[k]['image'] for k in ('a', 'b')]
    values.append(jax.random.uniform(rng))
    return {'w': jnp.stack(values)}, {'loss': jnp.zeros(())}

  phase = counter(
    num_steps=1,
    streams={'a': Stream(8, noise), 'b': Stream(8, noise)},
    init=lambda rng, carry: ({'w': jnp.zeros(3)}, {}),
    step=step,
  )
  values = np.asarray(fit(phase, dataset).carry['counter']['w'])
  assert len(set(values)) == 3


def test_static_chooses_the_program_of_each_step(dataset):
  traced = []

  def step(state, frozen, batches, rng, static):
    traced.append(static)
    return {'w': 10 * state['w'] + static}, {'loss': jnp.zeros(())}

  phase = counter(step=step, static=lambda i: (1, 2, 2, 1, 3, 1)[i])
  assert float(fit(phase, dataset).carry['counter']['w']) == 122131
  # Each program is traced once, although the names of the first one's metrics
  # are needed before it runs.
  assert sorted(traced) == [1, 2, 3]


def test_calls_of_several_steps_begin_at_multiples_and_pass_no_end():
  """Epochs of 10 steps, records every 25, 33 steps in all."""

  def calls(static):
    phase = counter(num_steps=33, static=static)
    step = 0
    while step < 33:
      yield step, (count := programs.together(phase, step, (10, 25), 4))
      step += count

  one_program = dict(calls(lambda step: None))
  starts = [step for step, count in one_program.items() if count == 4]
  assert starts == [0, 4, 12, 16, 20]
  assert set(one_program.values()) == {1, 4}
  # The second program begins at step 18, within the call that began at 16.
  two_programs = dict(calls(lambda step: step >= 18))
  starts = [step for step, count in two_programs.items() if count == 4]
  assert starts == [0, 4, 12, 20]


def test_stop_ends_the_phase_at_the_end_of_an_epoch(dataset, tmp_path):
  stop = lambda state: float(state['w']) >= 4  # noqa: E731
  phase = counter(num_steps=12, streams=STREAM, stop=stop)
  fitted = fit(phase, dataset, log=log_lib.Log(tmp_path, show=False))
  assert fitted.steps == 6  # epochs of 3 steps
  # The last record covers the steps since the one before it.
  assert [r['step'] for r in records_of(tmp_path)] == [6]


@pytest.mark.parametrize(('every', 'steps'), [(1, 4), (2, 4), (5, 5)])
def test_stop_is_asked_as_often_as_the_phase_says(
  every, steps, dataset, tmp_path
):
  stop = lambda state: float(state['w']) >= 4  # noqa: E731
  phase = counter(num_steps=12, streams=STREAM, stop=stop, stop_every=every)
  fitted = fit(phase, dataset, log=log_lib.Log(tmp_path, show=False))
  assert fitted.steps == steps
  assert [r['step'] for r in records_of(tmp_path)] == [steps]


def test_records_are_means_since_the_record_before(dataset, tmp_path):
  options = {'log': log_lib.Log(tmp_path, show=False), 'log_every': 4}
  fit(counter(), dataset, **options)
  assert records_of(tmp_path) == [
    {
      'order': 0,
      'phase': 'counter',
      'step': step,
      'split': 'train',
      'loss': mean,
      'double': 2 * mean,
    }
    for step, mean in ((4, 2.5), (6, 5.5))
  ]


def scores(values):
  """A function that evaluates the counter after n steps as values[n]."""

  def evaluate(model):
    step = int(model.variables['params']['stage']['w'])
    return {'top1': values[step], 'step': step}

  return evaluate


def evaluated(dataset, values, tmp_path, **options):
  log = log_lib.Log(tmp_path, show=False)
  phase = counter(
    num_steps=9, streams=STREAM, eval_models={'student': eval_model}
  )
  fitted = fit(phase, dataset, evaluate=scores(values), log=log, **options)
  return fitted, [r['step'] for r in records_of(tmp_path, 'validation')]


def test_the_best_epoch_is_kept_and_the_last_handed_on(dataset, tmp_path):
  fitted, steps_seen = evaluated(dataset, {3: 0.2, 6: 0.9, 9: 0.5}, tmp_path)
  assert steps_seen == [3, 6, 9]
  assert fitted.best_step == {'student': 6}
  assert float(fitted.best['student'].variables['params']['stage']['w']) == 6
  assert float(fitted.carry['counter']['w']) == 9


def test_the_first_of_equally_good_epochs_is_the_best(dataset, tmp_path):
  fitted, _ = evaluated(dataset, {3: 0.2, 6: 0.9, 9: 0.9}, tmp_path)
  assert fitted.best_step == {'student': 6}


def test_the_epoch_of_the_lowest_score_is_the_best_if_lower_is_better(
  dataset, tmp_path
):
  values = {3: 0.5, 6: 0.2, 9: 0.9}
  lower = Metric('top1', higher=False)
  fitted, _ = evaluated(dataset, values, tmp_path, score=lower)
  assert fitted.best_step == {'student': 6}


def test_a_model_whose_validation_loss_is_not_finite_is_never_the_best(dataset):
  def evaluate(model):
    step = int(model.variables['params']['stage']['w'])
    return {'top1': 1 / step, 'loss': np.inf if step == 3 else 1.0}

  phase = counter(
    num_steps=9, streams=STREAM, eval_models={'student': eval_model}
  )
  fitted = fit(phase, dataset, evaluate=evaluate)
  assert fitted.best_step == {'student': 6}


def test_a_score_that_is_not_measured_is_refused_with_the_nearest_name(
  dataset, tmp_path
):
  with pytest.raises(UsageError, match="score 'top2'; did you mean 'top1'"):
    evaluated(dataset, {3: 0.5}, tmp_path, score=Metric('top2'))


def test_evaluation_every_second_epoch_includes_the_last(dataset, tmp_path):
  values = {6: 0.1, 9: 0.2}
  fitted, steps_seen = evaluated(dataset, values, tmp_path, evaluate_every=2)
  assert steps_seen == [6, 9]
  assert fitted.best_step == {'student': 9}


def test_without_a_validation_split_there_is_no_best(dataset):
  fitted = fit(counter(eval_models={'student': eval_model}), dataset)
  assert (fitted.best, fitted.best_step) == ({}, {})


def test_records_name_the_model_if_several_are_evaluated(dataset, tmp_path):
  phase = counter(
    num_steps=3, streams=STREAM, eval_models={'a': eval_model, 'b': eval_model}
  )
  log = log_lib.Log(tmp_path, show=False)
  fitted = fit(phase, dataset, evaluate=scores({3: 0.5}), log=log)
  assert set(fitted.best) == {'a', 'b'}
  for name in ('a', 'b'):
    assert len(records_of(tmp_path, f'validation/{name}')) == 1


def test_a_model_that_is_not_in_the_carry_is_evaluated_but_not_kept(
  dataset, tmp_path
):
  phase = counter(
    num_steps=3, streams=STREAM, eval_models={'partial': eval_model}
  )
  log = log_lib.Log(tmp_path, show=False)
  fitted = fit(phase, dataset, {}, evaluate=scores({3: 0.5}), log=log)
  assert (fitted.best, fitted.best_step) == ({}, {})
  assert len(records_of(tmp_path, 'validation/partial')) == 1


def test_the_best_model_of_a_later_phase_replaces_that_of_an_earlier(dataset):
  a = counter(
    'a', 3, STREAM, eval_models={'teacher': eval_model, 'both': eval_model}
  )
  b = counter(
    'b', 6, STREAM, eval_models={'student': eval_model, 'both': eval_model}
  )
  options = loop.FitOptions(evaluate=scores({3: 0.5, 6: 0.9}))
  carry = roles('teacher', 'student', 'both')
  fitted = loop.fit(
    (lambda carry: a, lambda carry: b), carry, dataset, options=options
  )
  assert fitted.best_step == {'teacher': 3, 'student': 6, 'both': 6}
  assert float(fitted.best['both'].variables['params']['stage']['w']) == 6


def test_the_reports_of_all_phases_are_returned(dataset):
  def report(state, carry):
    return {f'{max(carry)}.json': [float(state['w'])]}

  a = counter('a', 1, report=report)
  b = counter('b', 2, report=report)
  fitted = loop.fit((lambda carry: a, lambda carry: b), {}, dataset)
  assert fitted.reports == {'a.json': [1.0], 'b.json': [2.0]}


def failing_at(bad, value=np.nan, **changes):
  """A counter whose loss is `value` at step number `bad`, from 1."""

  def step(state, frozen, batches, rng, static):
    w = state['w'] + 1
    return {'w': w}, {'loss': jnp.where(w == bad, value, w)}

  return counter(num_steps=6, step=step, **changes)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('log_every', [1, 4, 50])
def test_the_error_of_an_infinite_or_nan_loss_names_step_and_phase(
  dataset, value, log_every
):
  message = "at step 3 of phase 'counter'; last good .*: none"
  with pytest.raises(loop.NonFiniteLossError, match=message):
    fit(failing_at(3, value), dataset, log_every=log_every)


def test_a_bad_loss_in_the_last_step_is_noticed(dataset):
  with pytest.raises(loop.NonFiniteLossError, match='at step 6'):
    fit(failing_at(6), dataset)


def test_a_state_with_nan_is_not_handed_on(dataset):
  """The gradient of a finite loss may be NaN."""

  def step(state, frozen, batches, rng, static):
    return {'w': state['w'] + jnp.nan}, {'loss': jnp.zeros(())}

  message = "state is not finite at step 1 of phase 'counter'"
  with pytest.raises(loop.NonFiniteLossError, match=message):
    fit(counter(num_steps=1, step=step), dataset)


def test_an_infinite_state_is_allowed(dataset):
  """Plateau rules begin with an infinite best loss."""
  init = lambda rng, carry: ({'w': jnp.asarray(jnp.inf)}, {})  # noqa: E731

  def step(state, frozen, batches, rng, static):
    return state, {'loss': jnp.zeros(())}

  fit(counter(init=init, step=step), dataset)


def test_a_phase_without_steps_still_changes_the_carry(
  dataset, student, tmp_path
):
  phase = phases.setup_phase('new', lambda rng, carry: {'assistant': student})
  fitted = fit(phase, dataset, directory=str(tmp_path))
  assert fitted.steps == 0
  assert fitted.carry['assistant'].network == student.network


def test_the_log_is_closed_when_a_phase_fails(dataset, tmp_path):
  log = log_lib.Log(tmp_path, show=False)
  with pytest.raises(loop.NonFiniteLossError):
    fit(failing_at(2), dataset, log=log)
  assert log._records is None


def test_streamed_data_is_loaded_by_the_chosen_number_of_workers(dataset):
  image = images.LazyImages(None, np.arange(24), (8, 8, 1))
  split = {**dataset.splits['train'], 'image': image}
  data = dataset._replace(splits={'train': split})
  (source,) = sources.of_phase(
    counter(streams=STREAM), {}, data, (0, 0), sharding.make_mesh(), 3
  ).values()
  assert source._workers == 3


def test_the_host_waits_for_the_call_before_the_last_two(dataset, monkeypatch):
  waited = []
  monkeypatch.setattr(
    phase_run.jax, 'block_until_ready', lambda count: waited.append(int(count))
  )
  fit(counter(num_steps=6), dataset)
  assert waited == [1, 2, 3, 4]


def test_what_is_not_a_method_is_refused(dataset):
  with pytest.raises(UsageError, match=r'fit: expected a method, .* got kd'):
    loop.fit(methods.kd, {}, dataset)
