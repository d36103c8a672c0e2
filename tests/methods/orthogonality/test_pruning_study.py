"""Pruning with distillation: who teaches whom, and the surplus."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import pruning, study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import mixing
from jaxdistill.methods.orthogonality import pruning_study
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet, vgg
from jaxdistill.phases import joint, recipes
from jaxdistill.pruning import masks, surgery
from jaxdistill.study import registry
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

HALF = {'half': pruning.filters(keep=0.5)}
SILENT = loop.FitOptions(log=log.Log(show=False))


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
  """Models in all roles of the protocol, as if they had been trained."""
  image = {'image': recipe.example['image']}
  models = {}
  for seed, role in enumerate(('student', 'scratch', 'label', 'feature')):
    network = tiny(num_classes=3)
    variables = graph.init(network, jax.random.key(seed), image)
    models[role] = Model(network, variables)
  small = HALF['half'].prune(models['scratch'])
  for role in (
    'half.finetuned',
    *(f'half.{k}.{c}' for k in ('label', 'feature') for c in COLUMNS),
  ):
    models[role] = small
  return models


COLUMNS = ('pre', 'post', 'pre_post', 'self')


def phases(method, carry):
  """Returns the phases of a method by name."""
  return {phase.name: phase for phase in (make(carry) for make in method)}


def test_each_column_has_its_source_and_teacher(recipe, carry):
  """The teacher is the only constant role that a phase reads."""
  phases_by_name = phases(
    pruning_study.pruning_protocol(recipe, prunings=HALF), carry
  )
  teachers = {}
  for name, phase in phases_by_name.items():
    if phase.num_steps:
      state, frozen = phase.init(jax.random.key(0), carry)
      teachers[name] = tuple(frozen)
      assert set(state.variables) - {'adapters'} == {name}
      assert tuple(phase.eval_models) == (name,)
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
    models = phases_by_name[f'prune_half.{column}'].init(
      jax.random.key(0), carry
    )[0]
    expected = HALF['half'].prune(carry[source]).variables
    jax.tree.map(
      np.testing.assert_array_equal, models[f'half.{column}'], expected
    )


def test_a_run_may_train_only_some_columns(recipe, carry):
  method = pruning_study.pruning_protocol(
    recipe, prunings=HALF, kinds=('label',), columns=('self',)
  )
  trained = [k for k, v in phases(method, carry).items() if v.num_steps]
  assert trained == ['scratch', 'label', 'half.finetuned', 'half.label.self']


def test_fine_tuning_takes_a_quarter_of_the_epochs_by_default(recipe, carry):
  whole = recipe._replace(epochs=8)
  phases_by_name = phases(
    pruning_study.pruning_protocol(whole, prunings=HALF), carry
  )
  assert (
    phases_by_name['label'].num_steps
    == 4 * phases_by_name['half.label.self'].num_steps
  )
  method = pruning_study.pruning_protocol(
    whole, prunings=HALF, fine_tune_epochs=1
  )
  steps = phases(method, carry)['half.finetuned'].num_steps
  assert steps == whole.steps_per_epoch


def first_step(phase, carry, batch):
  """Returns (state before, state after, metrics) of a step."""
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after, metrics = step(state, frozen, {'train': batch}, jax.random.key(1))
  return state, after, metrics


@pytest.fixture(scope='module')
def mixed(dataset):
  """A recipe, and a batch in which CutMix has changed every image."""
  function = mixing.cutmix(num_classes=3, probability=1.0)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=2,
    batch_size=8,
    augment=function,
  )
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  return recipe, jax.jit(recipe.stream.augment)(jax.random.key(3), raw)


def features_of(carry, batch):
  """Features of the student, in training mode, and of the teacher 'scratch'."""
  image = {'image': batch['image']}
  student_features, _ = graph.run(*carry['label'], image, train=True)
  teacher_features, _ = graph.run(*carry['scratch'], image)
  return student_features, teacher_features


def test_label_distillation_is_equation_1_on_the_mixed_image(mixed, carry):
  """The loss is 0.3 * cross-entropy with mixed labels + 0.7 * 2**2 * KL, where
  the teacher has seen the mixed image too."""
  recipe, batch = mixed
  assert ((batch['label'] > 0).sum(1) == 2).any()
  method = pruning_study.pruning_protocol(
    recipe, prunings=HALF, alpha=0.7, temperature=2.0
  )
  phase = phases(method, carry)['label']
  _, _, metrics = first_step(phase, carry, batch)
  student_logits, teacher_logits = (
    np.float64(x['head']) for x in features_of(carry, batch)
  )
  log_probabilities = np.float64(jax.nn.log_softmax(student_logits))
  hard = -(np.float64(batch['label']) * log_probabilities).sum(-1).mean()
  p, q = (
    np.float64(jax.nn.log_softmax(x / 2))
    for x in (teacher_logits, student_logits)
  )
  soft = 4 * (np.exp(p) * (p - q)).sum(-1).mean()
  np.testing.assert_allclose(metrics['label'], soft, rtol=1e-4)
  np.testing.assert_allclose(
    metrics['loss'], 0.3 * hard + 0.7 * soft, rtol=1e-4
  )


def test_feature_distillation_is_equation_2_on_the_mixed_image(mixed, carry):
  recipe, batch = mixed
  method = pruning_study.pruning_protocol(recipe, prunings=HALF, beta=30.0)
  phase = phases(method, carry)['feature']
  models = {**carry, 'feature': carry['label']}
  state, _, metrics = first_step(phase, models, batch)
  kernel = state.variables['adapters']['params']['regressor']['conv']['kernel']
  student_features, teacher_features = features_of(carry, batch)
  regressed = np.float64(student_features['group1']) @ np.float64(kernel)[0, 0]
  unit = [
    x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True))
    for x in (regressed, np.float64(teacher_features['group1']))
  ]
  distance = np.abs(unit[0] - unit[1]).mean((1, 2, 3)).mean()
  hard = recipe.task.loss(student_features['head'], batch).mean()
  np.testing.assert_allclose(metrics['feature'], distance, rtol=1e-4)
  np.testing.assert_allclose(metrics['loss'], hard + 30 * distance, rtol=1e-4)


@pytest.fixture(scope='module')
def finished(dataset, tmp_path_factory):
  """A work directory after the protocol with label distillation only."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(registry.DATASETS, 'noise', lambda: dataset)
    patch.setitem(registry.NETWORKS, 'tiny', tiny)
    plan = study.plan(
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
  models = results['rows'][0]['seeds']['0']['beside']
  assert sorted(models) == sorted(ROLES)
  for measured in models.values():
    assert set(measured['test']) == {'last', 'best'}
  differences = results['rows'][0]['seeds']['0']['differences']
  assert [*differences] == ['some.label.surplus']
  for when in ('last', 'best'):
    scores = {k: v['test'][when]['top1'] for k, v in models.items()}
    gain = scores['some.label.self'] - scores['some.finetuned']
    expected = gain - (scores['label'] - scores['scratch'])
    value = differences['some.label.surplus']['test'][when]['top1']
    assert math.isclose(value, expected, abs_tol=1e-9)


def test_results_computed_again_from_files_are_the_same(finished):
  plan, workdir, results = finished
  again = study.evaluate(plan, workdir)
  for key in ('beside', 'differences'):
    value, expected = (
      r['rows'][0]['seeds']['0'][key] for r in (again, results)
    )
    assert value == expected


def test_the_table_has_a_line_for_every_column(finished):
  _, _, results = finished
  table = study.table(results)
  names = list(table.columns[0].cells)
  assert names[0] == 'pruning_protocol'
  lines = (*ROLES, 'some.label.surplus')
  assert sorted(names[1:]) == sorted(f'{names[0]}: {line}' for line in lines)
  cells = dict(zip(names, table.columns[2].cells))
  scores = {k: float(cells[f'{names[0]}: {k}']) for k in lines}
  expected = scores['some.label.self'] - scores['some.finetuned']
  expected -= scores['label'] - scores['scratch']
  assert abs(scores['some.label.surplus'] - expected) < 0.03
  assert list(table.columns[1].cells)[-1] == '-'


@pytest.fixture(scope='module')
def ended(finished):
  """The carry at the end, read from the files of each phase."""
  plan, workdir, _ = finished
  row = plan.rows[0]
  carry = {'student': study.initial_model(plan, 'student', 0)}
  folder = str(workdir / 'rows' / row.label / '0')
  options = SILENT._replace(directory=folder)
  return loop.fit(row.method, carry, plan.dataset, options=options).carry


def zeros(model):
  kernel = model.variables['params']['group1.block1']['conv']['kernel']
  return np.asarray(kernel == 0)


def test_fine_tuning_keeps_the_zeros_of_its_source(ended):
  assert set(ended) == {'student', *ROLES}
  assert not zeros(ended['scratch']).any() and not zeros(ended['label']).any()
  half = pruning.magnitude(keep=0.5)
  for role in ROLES[2:]:
    source = 'scratch' if role.split('.')[-1] in ('finetuned', 'post') else ''
    expected = zeros(half.prune(ended[source or 'label']))
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(zeros(ended[role]), expected)


def test_the_last_network_is_handed_on_as_the_student(ended):
  jax.tree.map(
    np.testing.assert_array_equal,
    ended['student'].variables,
    ended['some.label.self'].variables,
  )


@pytest.mark.parametrize(
  ('row', 'base', 'distilled', 'fine_tuned', 'self_distilled', 'value'),
  [
    ('R56 40/70/90 label', 71.23, 73.76, 70.06, 73.30, 0.71),
    ('R110 50/60/70 feature', 72.76, 74.98, 70.60, 73.71, 0.89),
    ('VGG-19 label', 72.03, 73.84, 72.30, 73.91, -0.20),
    ('DenseNet-40 feature', 73.14, 74.19, 72.30, 74.43, 1.08),
  ],
)
def test_the_surplus_is_that_of_the_paper(
  row, base, distilled, fine_tuned, self_distilled, value
):
  scores = {'scratch': base, 'label': distilled}
  scores |= {'p.finetuned': fine_tuned, 'p.label.self': self_distilled}
  surplus = pruning_study.surplus(scores, 'p', 'label')
  assert math.isclose(surplus, value, abs_tol=1e-9)


def test_any_method_can_run_before_and_after_a_pruning(recipe, carry):
  """Here both methods are distillation, and the pruning is slimming."""
  slimming = pruning.slimming(keep=0.5)
  method = pruning_study.pruned(
    recipe,
    pruning=slimming,
    method=joint.kd(recipe, teacher='scratch'),
    fine_tune=lambda recipe: joint.kd(recipe, teacher='label'),
    fine_tune_epochs=1,
  )
  built = [make(carry) for make in method]
  assert [p.name for p in built] == ['check', 'kd', 'prune_student', 'kd']
  assert [p.num_steps for p in built] == [0, 6, 0, 3]
  state, frozen = built[2].init(jax.random.key(0), carry)
  ended = built[2].finish(state, frozen, carry)['student']
  assert graph.count_parameters(ended.variables) < graph.count_parameters(
    carry['student'].variables
  )
  (channels,) = surgery.channel_sets(ended)
  # All scales are equal, so that none is above the threshold.
  assert channels.size == 1


OF_OTHER_TASKS = {'cwd', 'depth_kd', 'fgd', 'ifv', 'pixel_kd'}


@pytest.mark.parametrize(
  'name', sorted({*registry.OBJECTIVES} - {'fsp'} - OF_OTHER_TASKS)
)
def test_every_objective_accepts_a_pruned_student(
  name, student, teacher, recipe
):
  """Its blocks have the same output channels; 'fsp' needs equal channels."""
  small = pruning.filters(keep=0.5).prune(student)
  assert small.network != student.network
  phase = registry.METHODS[name](recipe)[0](
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

  value = jax.eval_shape(loss, jax.random.key(0), teacher.variables)
  assert value.shape == ()


def test_in_a_config_the_method_after_pruning_has_a_recipe_of_its_own(
  monkeypatch, dataset
):
  monkeypatch.setitem(registry.DATASETS, 'noise', lambda: dataset)
  monkeypatch.setitem(registry.NETWORKS, 'tiny', tiny)
  plan = study.plan(
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
  start = {'student': study.initial_model(plan, 'student', 0)}
  steps = [make(start).num_steps for make in row.method]
  assert steps == [0, 12, 0, 3]
  state, _ = row.method[-1](start).init(jax.random.key(0), start)
  assert isinstance(state.optimizer, masks.KeepZerosState)
  assert row.resolved['method']['fine_tune']['name'] == 'supervised'


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'prunings': {}}, 'prunings: expected .* at least one'),
    ({'prunings': HALF['half']}, 'prunings: expected {label: pruning}'),
    ({'temperature': 0.0}, r'temperature: .* in \[0.001, .* got 0\.0'),
    ({'beta': float('nan')}, 'beta: expected .* got nan'),
    ({'fine_tune_epochs': 0}, 'fine_tune_epochs: expected .* got 0'),
    ({'prunings': {'a/b': HALF['half']}}, "expected labels of .* got 'a/b'"),
    (
      {'prunings': {'label': HALF['half']}},
      "expected labels of .* got 'label'",
    ),
    ({'kinds': ('labels',)}, "kind of distillation 'labels'.*'label'"),
    ({'columns': ('self', 'past')}, "column 'past'; did you mean 'post'"),
    ({'alpha': 1.5}, r'alpha: .* got 1\.5'),
    (
      {'prunings': {'p': pruning.filters(keep=0.2)}},
      'keep: expected at least 0.25',
    ),
    (
      {'prunings': {'p': pruning.filters(keep=0.5, skip=('group9',))}},
      "skip 'group9'",
    ),
    ({'student': 'pupil'}, "role 'pupil'"),
  ],
)
def test_invalid_arguments_are_refused_before_training(
  arguments, words, recipe, carry
):
  with pytest.raises(UsageError, match=words):
    method = pruning_study.pruning_protocol(
      recipe, **{'prunings': HALF, **arguments}
    )
    method[0]({'student': carry['student']})


def test_features_of_two_sizes_are_pooled(recipe, carry):
  """The regressor also handles other numbers of channels."""
  stages = (
    Stage('group1.block1', resnet.BasicBlock(3, stride=2)),
    *carry['student'].network.stages[1:],
  )
  network = Network(stages)
  image = {'image': recipe.example['image']}
  other = Model(network, graph.init(network, jax.random.key(0), image))
  phase = registry.METHODS['fd'](recipe)[0](
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


def test_the_default_fine_tuning_is_sgd_with_plain_momentum(recipe):
  """The first step is -0.001 times the sum of gradient and decayed weight."""
  fine_tune = pruning_study._finetuning(recipe, None, None)
  params = {'head': {'kernel': jnp.array([[2.0]])}}
  optimizer = fine_tune.optimizer(10)
  state, gradient = (
    optimizer.init(params),
    {'head': {'kernel': jnp.ones((1, 1))}},
  )
  for step in (1, 1.9):
    updates, state = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(
      updates['head']['kernel'], -1e-3 * step * (1 + 2e-4), rtol=1e-5
    )
