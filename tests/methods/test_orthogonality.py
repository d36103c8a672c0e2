"""Orthogonality: who teaches whom before and after pruning, and the surplus."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import experiment, recipes, study, tables
from jaxdistill.data import mixing
from jaxdistill.methods import joint, orthogonality
from jaxdistill.networks import files, layers, resnet, staged, vgg
from jaxdistill.pruning import channels, filters, slimming, weights
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

HALF = {'half': filters.filters(keep=0.5)}
SILENT = loop.Options(log=log.Log(show=False))


def tiny(*, num_classes: int) -> Network:
  return Network(
    (
      Stage('group1.block1', vgg.VGGUnit(4, use_bias=False)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


@pytest.fixture(scope='module')
def carry(recipe):
  """All roles of the protocol, as if they had been trained."""
  image = {'image': recipe.example['image']}
  made = {}
  for seed, role in enumerate(('student', 'scratch', 'label', 'feature')):
    network = tiny(num_classes=3)
    variables = staged.init(network, jax.random.key(seed), image)
    made[role] = Model(network, variables)
  small = HALF['half'].prune(made['scratch'])
  for role in (
    'half.finetuned',
    *(f'half.{k}.{c}' for k in ('label', 'feature') for c in COLUMNS),
  ):
    made[role] = small
  return made


COLUMNS = ('pre', 'post', 'pre_post', 'self')


def phases(method, carry):
  return {phase.name: phase for phase in (make(carry) for make in method)}


def test_each_column_has_its_source_and_teacher(recipe, carry):
  """Teacher: the one role besides the trained that is read, and constant."""
  found = phases(orthogonality.pruning_protocol(recipe, prunings=HALF), carry)
  teachers = {}
  for name, phase in found.items():
    if phase.num_steps:
      state, frozen = phase.init(jax.random.key(0), carry)
      teachers[name] = tuple(frozen)
      assert set(state.variables) - {'helpers'} == {name}
      assert tuple(phase.views) == (name,)
  assert teachers == {
    'scratch': (),
    'label': ('scratch',),
    'feature': ('scratch',),
    'half.finetuned': (),
    **{f'half.{kind}.pre': () for kind in ('label', 'feature')},
    **{f'half.{kind}.post': ('scratch',) for kind in ('label', 'feature')},
    **{f'half.{kind}.pre_post': ('scratch',) for kind in ('label', 'feature')},
    **{f'half.{kind}.self': (kind,) for kind in ('label', 'feature')},
  }
  sources = {'finetuned': 'scratch', 'label.post': 'scratch'}
  sources |= {f'label.{c}': 'label' for c in ('pre', 'pre_post', 'self')}
  sources |= {'feature.post': 'scratch', 'feature.self': 'feature'}
  for column, source in sources.items():
    made = found[f'prune_half.{column}'].init(jax.random.key(0), carry)[0]
    wanted = HALF['half'].prune(carry[source]).variables
    jax.tree.map(np.testing.assert_array_equal, made[f'half.{column}'], wanted)


def test_a_run_may_do_with_fewer_columns(recipe, carry):
  method = orthogonality.pruning_protocol(
    recipe, prunings=HALF, kinds=('label',), columns=('self',)
  )
  trained = [k for k, v in phases(method, carry).items() if v.num_steps]
  assert trained == ['scratch', 'label', 'half.finetuned', 'half.label.self']


def test_the_budget_of_fine_tuning_is_a_quarter_unless_given(recipe, carry):
  whole = recipe._replace(epochs=8)
  found = phases(orthogonality.pruning_protocol(whole, prunings=HALF), carry)
  assert found['label'].num_steps == 4 * found['half.label.self'].num_steps
  method = orthogonality.pruning_protocol(
    whole, prunings=HALF, fine_tune_epochs=1
  )
  steps = phases(method, carry)['half.finetuned'].num_steps
  assert steps == whole.steps_per_epoch


def first_step(phase, carry, batch):
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after, metrics = step(state, frozen, {'train': batch}, jax.random.key(1))
  return state, after, metrics


@pytest.fixture(scope='module')
def mixed(dataset):
  """A batch of which CutMix has changed every image."""
  function = mixing.cutmix(num_classes=3, probability=1.0)
  recipe = recipes.recipe(
    dataset,
    classification.classification(),
    epochs=2,
    batch_size=8,
    augment=function,
  )
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe, jax.jit(recipe.stream.augment)(jax.random.key(3), raw)


def answers(carry, batch):
  """Logits of a student in training mode and of the teacher 'scratch'."""
  image = {'image': batch['image']}
  ours, _ = staged.run(*carry['label'], image, train=True)
  theirs, _ = staged.run(*carry['scratch'], image)
  return ours, theirs


def test_label_distillation_is_equation_1_on_the_mixed_image(mixed, carry):
  """0.3 * cross-entropy with mixed labels + 0.7 * 2**2 * KL(teacher, student),
  the teacher having seen the mixed image too."""
  recipe, batch = mixed
  assert ((batch['label'] > 0).sum(1) == 2).any()
  method = orthogonality.pruning_protocol(
    recipe, prunings=HALF, alpha=0.7, temperature=2.0
  )
  phase = phases(method, carry)['label']
  _, _, metrics = first_step(phase, carry, batch)
  ours, theirs = (np.float64(x['head']) for x in answers(carry, batch))
  own = np.float64(jax.nn.log_softmax(ours))
  hard = -(np.float64(batch['label']) * own).sum(-1).mean()
  p, q = (np.float64(jax.nn.log_softmax(x / 2)) for x in (theirs, ours))
  soft = 4 * (np.exp(p) * (p - q)).sum(-1).mean()
  np.testing.assert_allclose(metrics['label'], soft, rtol=1e-4)
  np.testing.assert_allclose(
    metrics['loss'], 0.3 * hard + 0.7 * soft, rtol=1e-4
  )


def test_feature_distillation_is_equation_2_on_the_mixed_image(mixed, carry):
  recipe, batch = mixed
  method = orthogonality.pruning_protocol(recipe, prunings=HALF, beta=30.0)
  phase = phases(method, carry)['feature']
  moved = {**carry, 'feature': carry['label']}
  state, _, metrics = first_step(phase, moved, batch)
  kernel = state.variables['helpers']['params']['regressor']['conv']['kernel']
  ours, theirs = answers(carry, batch)
  regressed = np.float64(ours['group1']) @ np.float64(kernel)[0, 0]
  unit = [
    x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True))
    for x in (regressed, np.float64(theirs['group1']))
  ]
  near = np.abs(unit[0] - unit[1]).mean((1, 2, 3)).mean()
  hard = recipe.task.loss(ours['head'], batch).mean()
  np.testing.assert_allclose(metrics['feature'], near, rtol=1e-4)
  np.testing.assert_allclose(metrics['loss'], hard + 30 * near, rtol=1e-4)


@pytest.fixture(scope='module')
def finished(dataset, tmp_path_factory):
  """A work directory after the protocol with label distillation alone."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(tables.DATASETS, 'noise', lambda: dataset)
    patch.setitem(tables.MODELS, 'tiny', tiny)
    plan = experiment.plan(
      {
        'data': {'name': 'noise'},
        'student': {'name': 'tiny'},
        'optimizer': {'name': 'slim', 'optimizer': {'name': 'sgd'}},
        'epochs': 1,
        'batch_size': 8,
        'method': {
          'name': 'pruning_protocol',
          'kinds': ('label',),
          'prunings': {'some': {'name': 'magnitude', 'keep': 0.5}},
          'fine_tune_epochs': 1,
        },
      }
    )
  workdir = tmp_path_factory.mktemp('protocol')
  return plan, workdir, study.run(plan, workdir, show=False)


ROLES = ('scratch', 'label', 'some.finetuned')
ROLES += tuple(f'some.label.{column}' for column in COLUMNS)


def test_one_config_gives_every_column_and_the_surplus(finished):
  _, _, results = finished
  others = results['rows'][0]['seeds']['0']['beside']
  assert sorted(others) == sorted(ROLES)
  for measured in others.values():
    assert set(measured['test']) == {'last', 'best'}
  found = results['rows'][0]['seeds']['0']['differences']
  assert [*found] == ['some.label.surplus']
  for when in ('last', 'best'):
    scores = {k: v['test'][when]['top1'] for k, v in others.items()}
    gain = scores['some.label.self'] - scores['some.finetuned']
    wanted = gain - (scores['label'] - scores['scratch'])
    value = found['some.label.surplus']['test'][when]['top1']
    assert math.isclose(value, wanted, abs_tol=1e-9)


def test_results_made_again_from_files_are_the_same(finished):
  plan, workdir, results = finished
  again = study.evaluate(plan, workdir)
  for key in ('beside', 'differences'):
    ours, theirs = (r['rows'][0]['seeds']['0'][key] for r in (again, results))
    assert ours == theirs


def test_the_table_has_a_line_for_every_column(finished):
  _, _, results = finished
  table = study.table(results)
  names = list(table.columns[0].cells)
  assert names[0] == 'pruning_protocol'
  lines = (*ROLES, 'some.label.surplus')
  assert sorted(names[1:]) == sorted(f'{names[0]}: {line}' for line in lines)
  shown = dict(zip(names, table.columns[2].cells))
  of = {k: float(shown[f'{names[0]}: {k}']) for k in lines}
  wanted = of['some.label.self'] - of['some.finetuned']
  wanted -= of['label'] - of['scratch']
  assert abs(of['some.label.surplus'] - wanted) < 0.03
  assert list(table.columns[1].cells)[-1] == '-'


@pytest.fixture(scope='module')
def ended(finished):
  """The carry, read from the files phase by phase."""
  plan, workdir, _ = finished
  row = plan.rows[0]
  carry = {'student': experiment.initial_model(plan, 'student', 0)}
  folder = str(workdir / 'rows' / row.label / '0')
  options = SILENT._replace(directory=folder)
  return loop.fit(row.method, carry, plan.dataset, options=options).carry


def zeros(model):
  kernel = model.variables['params']['group1.block1']['conv']['kernel']
  return np.asarray(kernel == 0)


def test_fine_tuning_keeps_the_zeros_of_its_source(ended):
  assert set(ended) == {'student', *ROLES}
  assert not zeros(ended['scratch']).any() and not zeros(ended['label']).any()
  half = weights.magnitude(keep=0.5)
  for role in ROLES[2:]:
    source = 'scratch' if role.split('.')[-1] in ('finetuned', 'post') else ''
    wanted = zeros(half.prune(ended[source or 'label']))
    assert 0.2 < wanted.mean() < 0.8
    np.testing.assert_array_equal(zeros(ended[role]), wanted)


def test_the_student_handed_on_is_the_last_column(ended):
  jax.tree.map(
    np.testing.assert_array_equal,
    ended['student'].variables,
    ended['some.label.self'].variables,
  )


@pytest.mark.parametrize(
  ('row', 'base', 'distilled', 'tuned', 'own', 'value'),
  [
    ('R56 40/70/90 label', 71.23, 73.76, 70.06, 73.30, 0.71),
    ('R110 50/60/70 feature', 72.76, 74.98, 70.60, 73.71, 0.89),
    ('VGG-19 label', 72.03, 73.84, 72.30, 73.91, -0.20),
    ('DenseNet-40 feature', 73.14, 74.19, 72.30, 74.43, 1.08),
  ],
)
def test_the_surplus_is_the_papers(row, base, distilled, tuned, own, value):
  scores = {'scratch': base, 'label': distilled}
  scores |= {'p.finetuned': tuned, 'p.label.self': own}
  found = orthogonality.surplus(scores, 'p', 'label')
  assert math.isclose(found, value, abs_tol=1e-9)


def test_any_method_stands_before_and_after_a_pruning(recipe, carry):
  """Here distillation in both places; what is pruned is slimmed."""
  pruning = slimming.slimming(keep=0.5)
  method = orthogonality.pruned(
    recipe,
    pruning=pruning,
    method=joint.kd(recipe, teacher='scratch'),
    fine_tune=lambda recipe: joint.kd(recipe, teacher='label'),
    fine_tune_epochs=1,
  )
  found = [make(carry) for make in method]
  assert [p.name for p in found] == ['check', 'kd', 'prune_student', 'kd']
  assert [p.num_steps for p in found] == [0, 6, 0, 3]
  state, frozen = found[2].init(jax.random.key(0), carry)
  ended = found[2].finish(state, frozen, carry)['student']
  assert files.count_parameters(ended.variables) < files.count_parameters(
    carry['student'].variables
  )
  (own,) = channels.channel_sets(ended)
  assert own.size == 1  # of equal scales none is above the threshold


@pytest.mark.parametrize('name', sorted({*tables.TERMS} - {'fsp'}))
def test_a_pruned_student_fits_every_term(name, student, teacher, recipe):
  """Its blocks give out what they did; 'fsp' wants equal channels anyway."""
  small = filters.filters(keep=0.5).prune(student)
  assert small.network != student.network
  phase = tables.METHODS[name](recipe)[0](
    {'student': small, 'teacher': teacher}
  )

  def loss(rng, variables):
    models = {
      'student': small,
      'teacher': teacher._replace(variables=variables),
    }
    state, frozen = phase.init(rng, models)
    batches = {
      k: {n: jnp.zeros(x.shape, x.dtype) for n, x in recipe.example.items()}
      for k in phase.streams
    }
    return phase.step(state, frozen, batches, rng, phase.static(0))[1]['loss']

  found = jax.eval_shape(loss, jax.random.key(0), teacher.variables)
  assert found.shape == ()


def test_a_config_gives_the_method_after_pruning_its_own_recipe(
  monkeypatch, dataset
):
  monkeypatch.setitem(tables.DATASETS, 'noise', lambda: dataset)
  monkeypatch.setitem(tables.MODELS, 'tiny', tiny)
  plan = experiment.plan(
    {
      'data': {'name': 'noise'},
      'student': {'name': 'tiny'},
      'epochs': 4,
      'batch_size': 8,
      'methods': {
        'sparse': {
          'name': 'pruned',
          'pruning': {'name': 'magnitude', 'keep': 0.5},
          'method': {'name': 'supervised'},
          'fine_tune': {'name': 'supervised', 'student': 'student'},
          'fine_tune_optimizer': {
            'name': 'sgd',
            'schedule': {'name': 'constant', 'rate': 0.5},
          },
        },
      },
    }
  )
  row = plan.rows[0]
  start = {'student': experiment.initial_model(plan, 'student', 0)}
  steps = [make(start).num_steps for make in row.method]
  assert steps == [0, 12, 0, 3]
  state, _ = row.method[-1](start).init(jax.random.key(0), start)
  assert isinstance(state.optimizer, weights.KeepZerosState)
  assert row.resolved['method']['fine_tune']['name'] == 'supervised'


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'prunings': {}}, 'prunings: wanted at least one'),
    ({'prunings': HALF['half']}, 'prunings: wanted at least one, {label:'),
    ({'temperature': 0.0}, r'temperature is 0\.0'),
    ({'beta': float('nan')}, 'beta: wanted .* got nan'),
    ({'fine_tune_epochs': 0}, 'fine_tune_epochs: 0 is no number'),
    ({'prunings': {'a/b': HALF['half']}}, "'a/b' is no label"),
    ({'prunings': {'label': HALF['half']}}, "'label' is no label"),
    ({'kinds': ('labels',)}, "kind of distillation 'labels'.*'label'"),
    ({'columns': ('self', 'past')}, "column 'past'.*nearest: 'post'"),
    ({'alpha': 1.5}, r'alpha: 1\.5'),
    ({'prunings': {'p': filters.filters(keep=0.2)}}, 'are none'),
    (
      {'prunings': {'p': filters.filters(keep=0.5, skip=('group9',))}},
      "skip 'group9'",
    ),
    ({'student': 'pupil'}, "role 'pupil'"),
  ],
)
def test_wrong_choices_are_refused_before_training(
  arguments, words, recipe, carry
):
  with pytest.raises(UsageError, match=words):
    method = orthogonality.pruning_protocol(
      recipe, **{'prunings': HALF, **arguments}
    )
    method[0]({'student': carry['student']})


def test_of_two_sizes_the_features_are_pooled(recipe, carry):
  """A regressor also brings other channels to the teacher's."""
  stages = (
    Stage('group1.block1', resnet.BasicBlock(3, stride=2)),
    *carry['student'].network.stages[1:],
  )
  network = Network(stages)
  image = {'image': recipe.example['image']}
  other = Model(network, staged.init(network, jax.random.key(0), image))
  phase = tables.METHODS['fd'](recipe)[0](
    {'student': other, 'teacher': carry['scratch']}
  )
  state, frozen = jax.eval_shape(
    lambda rng: phase.init(
      rng, {'student': other, 'teacher': carry['scratch']}
    ),
    jax.random.key(0),
  )
  metrics = jax.eval_shape(
    functools.partial(phase.step, static=None),
    state,
    frozen,
    {'train': dict(recipe.example)},
    jax.random.key(0),
  )[1]
  assert metrics['fd'].shape == ()


def test_the_usual_fine_tuning_is_plain_momentum_at_a_thousandth(recipe):
  """The first step is -0.001 times the gradient and the decayed weight."""
  tuned = orthogonality._finetuning(recipe, None, None)
  params = {'head': {'kernel': jnp.array([[2.0]])}}
  optimizer = tuned.optimizer(10)
  state, gradient = (
    optimizer.init(params),
    {'head': {'kernel': jnp.ones((1, 1))}},
  )
  for step in (1, 1.9):
    updates, state = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(
      updates['head']['kernel'], -1e-3 * step * (1 + 2e-4), rtol=1e-5
    )
