"""Neighbourhood Distillation: each piece by itself, and all of them at once."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import optimizers
from jaxdistill.data import augment
from jaxdistill.methods import joint, neighbourhood, pieces, student_search
from jaxdistill.networks import (
  layers,
  layerwise,
  neighbourhoods,
  resnet,
  stacked,
  staged,
)
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))
BLOCKS = ('group1.block1', 'group2.block1')
# A boundary inside the second block, which its shortcut passes by.
PAST_THE_SHORTCUT = (
  ('stem', 'stem'),
  ('group2.block1.conv1', 'group2.block1.conv1'),
  ('group2', 'group2'),
)
PLAIN = optimizers.sgd(
  optimizers.constant(rate=1.0), momentum=0.0, weight_decay=0.0
)


def network(*inner):
  """Two blocks, of 3 and 4 channels, with so many inside."""
  return Network(
    (
      Stage('stem', layers.ConvUnit(3)),
      Stage(BLOCKS[0], resnet.BasicBlock(3, inner[0])),
      Stage(BLOCKS[1], resnet.BasicBlock(4, inner[1], stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )


def whole(recipe):
  """A student as wide as the teacher."""
  image = {'image': recipe.example['image']}
  made = network(0, 0)
  return Model(made, staged.init(made, jax.random.key(3), image))


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}

  def model(made, seed):
    return Model(made, staged.init(made, jax.random.key(seed), image))

  teacher = model(network(0, 0), 1)
  # Running statistics that are not those of any batch.
  statistics = jax.tree.map(lambda x: x + 0.3, teacher.variables['batch_stats'])
  variables = staged.merge(teacher.variables, {'batch_stats': statistics})
  return {
    'student': model(network(2, 1), 0),
    'teacher': Model(teacher.network, variables),
  }


def _plan(recipe, **arguments):
  recipe = recipe._replace(optimizer=PLAIN)
  return pieces.Plan(recipe, **arguments)


def _step(phase, carry, batches, count=1):
  """(state before, state after, metrics of the last step)."""
  before, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  after = before
  for i in range(count):
    rng = jax.random.fold_in(jax.random.key(1), i)
    after, metrics = step(after, frozen, batches, rng)
  return before, after, metrics


def _assert_close(ours, theirs, rtol=1e-4, atol=1e-6):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    ours,
    theirs,
  )


@pytest.fixture(scope='module')
def one_step(recipe, carry, batch):
  """A step of plain SGD at rate 1 with two terms of look-ahead."""
  plan = _plan(recipe, look_ahead=(0.5, 0.25))
  phase = pieces.train_phase(plan, carry, ('student',))
  return _step(phase, carry, {'train': batch})


def _by_hand(carry, batch):
  """The losses of both pieces as functions of their parameters."""
  student, teacher = carry['student'], carry['teacher']
  known, _ = staged.run(*teacher, {'image': batch['image']})

  def output(params, name, source):
    variables = staged.merge(student.variables, {'params': {name: params}})
    found, _ = staged.run(
      student.network,
      variables,
      {source: known[source]},
      only=[name],
      train=True,
    )
    return found[name]

  def first(params):
    own = output(params, BLOCKS[0], 'stem')
    next_, _ = staged.run(*teacher, {BLOCKS[0]: own}, only=[BLOCKS[1]])
    near = jnp.mean((own - known[BLOCKS[0]]) ** 2)
    far = jnp.mean((next_[BLOCKS[1]] - known[BLOCKS[1]]) ** 2)
    return near + 0.5 * far  # there is no third piece for the 0.25

  def second(params):
    own = output(params, BLOCKS[1], BLOCKS[0])
    return jnp.mean((own - known[BLOCKS[1]]) ** 2)

  return first, second


def test_each_neighbourhoods_loss_and_gradient_are_its_own(
  one_step, carry, batch
):
  before, after, metrics = one_step
  total = 0.0
  for name, loss in zip(BLOCKS, _by_hand(carry, batch)):
    own = carry['student'].variables['params'][name]
    value, gradient = jax.value_and_grad(loss)(own)
    total += value
    change = jax.tree.map(
      lambda a, b: a - b,
      after.variables['student']['params'][name],
      before.variables['student']['params'][name],
    )
    _assert_close(change, jax.tree.map(lambda g: -g, gradient))
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-5)


def test_nothing_but_the_neighbourhoods_moves(one_step):
  before, after, _ = one_step
  for collection in ('params', 'batch_stats'):
    trees = [s.variables['student'][collection] for s in (before, after)]
    moved = {
      name
      for name in trees[0]
      if any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(*(jax.tree.leaves(t[name]) for t in trees))
      )
    }
    assert moved == {*BLOCKS}


def test_all_at_once_is_each_alone(recipe, carry, batch):
  """With momentum and weight decay, where the other piece is a copy."""
  options = {'momentum': 0.9, 'weight_decay': 1e-2}
  recipe = recipe._replace(
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1), **options)
  )
  plan = pieces.Plan(recipe, copy_same=True)
  phase = pieces.train_phase(plan, carry, ('student',))
  _, together, _ = _step(phase, carry, {'train': batch}, count=3)
  for index, name in enumerate(BLOCKS):
    inner = [2, 1]
    inner[1 - index] = 0
    others = staged.select(whole(recipe).variables, [BLOCKS[1 - index]])
    variables = staged.merge(carry['student'].variables, others)
    single = {**carry, 'student': Model(network(*inner), variables)}
    phase = pieces.train_phase(plan, single, ('student',))
    before, after, _ = _step(phase, single, {'train': batch}, count=3)
    assert set(before.optimizer[2][0].trace['student']) == {name}
    _assert_close(
      after.variables['student']['params'][name],
      together.variables['student']['params'][name],
    )


@pytest.mark.parametrize('inputs', ['gaussian', 'rectified'])
def test_the_teachers_own_pieces_in_inference_mode_have_no_loss(
  recipe, carry, inputs
):
  plan = _plan(recipe, inputs=inputs, look_ahead=(1.0,))
  same = {**carry, 'student': whole(recipe)}
  setup = pieces.compose_phase(
    plan,
    same,
    lambda rng, carry: {'student': carry['student']},
    initial='teacher',
  )
  state, frozen = setup.init(jax.random.key(0), same)
  ready = setup.finish(state, frozen, same)
  phase = pieces.train_phase(plan, ready, ('student',))
  assert phase.streams == {}
  before, after, metrics = _step(phase, ready, {})
  assert float(metrics['loss']) == 0.0
  _assert_close(before.variables, after.variables, rtol=0, atol=0)
  other = pieces.train_phase(plan, carry, ('student',))
  assert float(_step(other, carry, {})[2]['loss']) > 0


def test_noise_is_new_at_each_step_and_of_its_kind(recipe, carry):
  def loss(seed, inputs='gaussian', look_ahead=()):
    plan = _plan(recipe, inputs=inputs, look_ahead=look_ahead)
    phase = pieces.train_phase(plan, carry, ('student',))
    state, frozen = phase.init(jax.random.key(0), carry)
    step = jax.jit(functools.partial(phase.step, static=None))
    return float(step(state, frozen, {}, jax.random.key(seed))[1]['loss'])

  here = loss(0)
  assert loss(0) == here
  assert abs(loss(1) - here) > 1e-3 * here
  assert abs(loss(0, 'rectified') - here) > 1e-3 * here
  assert loss(0, look_ahead=(1.0,)) > 1.001 * here


def test_the_pieces_learn_as_in_the_paper_where_nothing_is_said(recipe):
  """SGD with momentum 0.9 at 1e-3, weight decay 1e-4."""
  made = pieces.train_recipe(recipe, None, None)
  assert made.epochs == recipe.epochs
  optimizer = made.optimizer(10)
  params = {'kernel': jnp.full((2, 2), 3.0)}
  gradient = jax.tree.map(jnp.ones_like, params)
  state, trace = optimizer.init(params), 0.0
  for _ in range(2):
    update, state = optimizer.update(gradient, state, params)
    trace = 0.9 * trace + 1 + 1e-4 * 3
    np.testing.assert_allclose(update['kernel'], -1e-3 * trace, rtol=1e-6)


@pytest.mark.parametrize('copies', [True, False])
def test_statistics_on_noise_are_the_students_or_the_teachers_where_alike(
  recipe, carry, copies
):
  plan = _plan(recipe, inputs='gaussian')
  phase = pieces.statistics_phase(plan, carry, 'student', 2, copies=copies)
  assert phase.streams == {}
  _, after, _ = _step(phase, carry, {}, count=2)
  ours, theirs = (
    tree['batch_stats'][BLOCKS[0]]
    for tree in (after.variables, carry['teacher'].variables)
  )
  same = jax.tree.map(np.allclose, ours['norm2'], theirs['norm2'])
  assert list(same.values()) == [copies, copies]
  # Of the narrower layer those of what its convolution makes of noise.
  kernel = carry['student'].variables['params'][BLOCKS[0]]['conv1']['kernel']
  expected = (np.asarray(kernel) ** 2).sum((0, 1, 2))
  np.testing.assert_allclose(ours['norm1']['var'], expected, rtol=0.5)


@pytest.mark.parametrize('devices', [1, 2])
def test_stacked_candidates_learn_as_unrolled_ones_do(
  recipe, carry, batch, devices, monkeypatch
):
  """Of inner widths 1, 2 and 3, padded with zeros to 3; and to 4 candidates."""
  if devices > 1:
    monkeypatch.setattr(stacked, 'devices', lambda: devices)
    monkeypatch.setattr(stacked, 'spread', lambda tree: tree)
  image = {'image': recipe.example['image']}
  roles = {}
  for i, inner in enumerate(((1, 1), (2, 3), (3, 4))):
    made = network(*inner)
    variables = staged.init(made, jax.random.key(i), image)
    roles[f'k {i}'] = Model(made, variables)
  found = {}
  for form in pieces.FORMS:
    recipe = recipe._replace(
      optimizer=optimizers.sgd(optimizers.constant(rate=0.1))
    )
    plan = pieces.Plan(recipe, form=form, look_ahead=(1.0,))
    held = {**carry, **roles}
    phase = pieces.train_phase(plan, held, tuple(roles))
    _, after, metrics = _step(phase, held, {'train': batch}, count=2)
    found[form] = (after.variables, metrics)
  _assert_close(found['stack'], found['unroll'], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ('inner', 'shortcut', 'message'),
  [
    (3, 'A', 'differ in width alone'),
    (None, 'B', 'nowhere narrower than another'),
  ],
)
def test_candidates_that_do_not_fit_in_one_stack_are_refused(
  inner, shortcut, message
):
  x = jnp.zeros((1, 4, 4, 2))

  def variables(module):
    return jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, train=False)
    )

  trees = [variables(resnet.BasicBlock(3, 2))]
  if inner:
    trees.append(variables(resnet.BasicBlock(3, inner, shortcut=shortcut)))
  else:
    trees.append(variables(resnet.BasicBlock(4, 1)))
  with pytest.raises(UsageError, match=message):
    stacked.widest(trees)


@pytest.fixture(scope='module')
def fitted(recipe, carry, dataset):
  """Fine-tuned on labels for two steps of the recipe."""
  method = neighbourhood.neighbourhood(
    recipe,
    neighbourhood_optimizer=PLAIN,
    neighbourhood_epochs=1,
    statistics_steps=2,
    fine_tune=joint.supervised(recipe),
  )
  return loop.fit(method, carry, dataset, options=SILENT)


def test_the_student_is_kept_before_each_change(fitted, carry):
  kept = fitted.carry
  assert set(kept) == {'student', 'teacher', 'distilled', 'reestimated'}
  params = [kept[k].variables['params'] for k in ('distilled', 'reestimated')]
  _assert_close(*params, rtol=0, atol=0)
  stats = [
    kept[k].variables['batch_stats'] for k in ('distilled', 'reestimated')
  ]
  gap = jax.tree.map(lambda a, b: float(abs(a - b).max()), *stats)
  assert max(jax.tree.leaves(gap)) > 1e-3
  heads = [
    kept[k].variables['params']['head'] for k in ('distilled', 'teacher')
  ]
  _assert_close(*heads, rtol=0, atol=0)
  tuned = kept['student'].variables['params']['head']['linear']['kernel']
  assert (tuned != heads[0]['linear']['kernel']).any()
  assert kept['teacher'] is carry['teacher']


def test_pieces_of_layers_begin_with_the_teachers_weights(
  recipe, carry, dataset
):
  """Both are taken apart; with rate 0 the student stays the teacher."""
  same = {**carry, 'student': whole(recipe)}
  method = neighbourhood.neighbourhood(
    recipe,
    by_layers=True,
    initial='teacher',
    neighbourhood_epochs=1,
    statistics_steps=0,
    neighbourhood_optimizer=optimizers.sgd(
      optimizers.constant(rate=1e-12), weight_decay=0.0
    ),
  )
  end = loop.fit(method, same, dataset, options=SILENT).carry
  assert set(end) == {'student', 'teacher'}
  layered = layerwise.by_layers(carry['teacher'])
  assert end['student'].network == layered.network
  _assert_close(
    end['student'].variables['params'], layered.variables['params'], rtol=1e-5
  )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'initial': 'zero'}, "unknown initial 'zero'"),
    ({'inputs': 'images'}, "unknown inputs 'images'"),
    ({'look_ahead': (-1.0,)}, 'look_ahead: wanted weights of at least 0'),
    ({'cut': (('stem', 'stem'),)}, 'fewer than two boundaries'),
    (
      {'by_layers': True, 'cut': PAST_THE_SHORTCUT},
      f"student reads '{BLOCKS[1]}.shortcut' in '{BLOCKS[1]}.conv2', which",
    ),
  ],
)
def test_choices_that_are_none_are_refused(recipe, carry, arguments, message):
  method = neighbourhood.neighbourhood(recipe, **arguments)
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole(recipe)})


def test_noise_without_statistics_is_refused(recipe):
  with pytest.raises(UsageError, match='noise needs at least 1, got 0'):
    neighbourhood.neighbourhood(recipe, inputs='gaussian', statistics_steps=0)


def test_pieces_of_other_numbers_of_stages_take_nothing_over(recipe, carry):
  """By groups of a deeper student, of whose first the teacher has one block."""
  extra = Stage('group1.block2', resnet.BasicBlock(3))
  stages = network(2, 1).stages
  deeper = Network((*stages[:2], extra, *stages[2:]))
  image = {'image': recipe.example['image']}
  fresh = staged.init(deeper, jax.random.key(0), image)
  cut = tuple((name, name) for name in ('stem', 'group1', 'group2'))
  phase = pieces.compose_phase(
    _plan(recipe, cut=cut),
    carry,
    lambda rng, carry: {'student': Model(deeper, fresh)},
    initial='teacher',
  )
  state, _ = phase.init(jax.random.key(0), carry)
  ours, theirs = state['student'], carry['teacher'].variables
  _assert_close(
    ours['params'][BLOCKS[0]], fresh['params'][BLOCKS[0]], rtol=0, atol=0
  )
  _assert_close(
    ours['params'][BLOCKS[1]]['norm2'],
    theirs['params'][BLOCKS[1]]['norm2'],
    rtol=0,
    atol=0,
  )


def test_any_method_can_begin_from_the_teacher(recipe, carry):
  """Where shapes agree: all but the narrow layers."""
  method = neighbourhood.from_teacher(recipe, method=joint.supervised(recipe))
  phase = method[0](carry)
  state, _ = phase.init(jax.random.key(0), carry)
  ours = state['student']['params']
  theirs = carry['teacher'].variables['params']
  _assert_close(ours['stem'], theirs['stem'], rtol=0, atol=0)
  assert ours[BLOCKS[0]]['conv1']['kernel'].shape[-1] == 2
  assert len(method) == 2


def test_a_student_that_is_all_copies_is_refused(recipe, carry):
  same = {**carry, 'student': carry['teacher']}
  method = neighbourhood.neighbourhood(recipe, copy_same=True)
  with pytest.raises(UsageError, match='nothing is left to train'):
    method[0](same)


def test_a_negative_number_of_epochs_is_refused(recipe):
  with pytest.raises(UsageError, match='neighbourhood_epochs: wanted a number'):
    neighbourhood.neighbourhood(recipe, neighbourhood_epochs=-3)


def test_the_smallest_candidate_that_is_good_enough_is_chosen():
  quality = np.array([[0.5, 0.9, 0.89], [0.2, 0.3, 0.1]])
  sizes = np.array([[1, 3, 2], [1, 2, 3]])
  choose = functools.partial(student_search.choose, quality, sizes, 0.9)
  assert choose(0.05) == [2, 1]  # of the second all lose more: the best
  assert choose(0.005) == [1, 1]
  assert choose(0.75) == [0, 0]


@pytest.fixture(scope='module')
def searched(recipe, carry, dataset):
  """(what the measuring ends with, and the whole method)."""
  base = {**carry, 'student': whole(recipe)}
  all_of_it = recipe.validation._replace(batch_size=10)
  method = student_search.student_search(
    recipe._replace(validation=all_of_it),
    multipliers=(0.4, 1.0),
    drops=(0.01, 0.9),
    neighbourhood_epochs=1,
    statistics_steps=1,
  )
  measured = loop.fit(method[:3], base, dataset, options=SILENT)
  return measured, loop.fit(method[3:], measured.carry, dataset, options=SILENT)


def test_a_searchs_qualities_are_those_of_partial_models(
  searched, recipe, dataset
):
  """Measured anew on the whole validation split, which is one batch."""
  measured, _ = searched
  found = measured.reports['student_search.json']
  teacher = measured.carry['teacher']
  raw = {k: jnp.asarray(v) for k, v in dataset.splits['validation'].items()}
  batch = augment.standardize(dataset.mean, dataset.std)(jax.random.key(0), raw)

  def right(model):
    return float(
      (staged.apply(*model, batch['image']).argmax(-1) == batch['label']).mean()
    )

  assert found['teacher'] == pytest.approx(right(teacher))
  example = {'image': recipe.example['image']}
  for role in ('k 0.4', 'k 1'):
    model = measured.carry[role]
    made = neighbourhoods.layout(model.network, teacher.network, example)
    for i, name in enumerate(BLOCKS):
      partial = neighbourhoods.partial(made, i, model, teacher)
      assert found['quality'][name][role] == pytest.approx(right(partial))


def test_the_answers_of_all_partial_models_are_those_of_each(
  recipe, carry, batch
):
  example = {'image': recipe.example['image']}
  teacher = carry['teacher']
  students = {
    f'k {i}': Model(made, staged.init(made, jax.random.key(i), example))
    for i, made in enumerate((network(1, 1), network(2, 3), network(3, 4)))
  }
  made = neighbourhoods.layout(
    students['k 0'].network, teacher.network, example
  )
  found = pieces.partial_answers(
    _plan(recipe),
    made,
    {**carry, **students},
    tuple(students),
    {'train': batch},
    jax.random.key(0),
  )
  for k, model in enumerate(students.values()):
    for i in range(2):
      partial = neighbourhoods.partial(made, i, model, teacher)
      answer = staged.apply(*partial, batch['image'])
      _assert_close(found['candidates'][i, k], answer, atol=1e-5)
  answer = staged.apply(*teacher, batch['image'])
  _assert_close(found['teacher'], answer, atol=1e-5)
  assert len({*found['candidates'][:, :, 0, 0].ravel().tolist()}) == 6


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'look_ahead': (-1.0,)}, 'look_ahead: wanted weights of at least 0'),
    ({'cut': (('stem', 'stem'),)}, 'fewer than two boundaries'),
    ({'form': 'row'}, "unknown form 'row'"),
  ],
)
def test_a_search_hands_on_what_its_pieces_are_told(
  recipe, carry, arguments, message
):
  method = student_search.student_search(
    recipe, multipliers=(1.0,), **arguments
  )
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole(recipe)})


def test_a_searchs_students_are_made_of_the_candidates(searched):
  found = searched[0].reports['student_search.json']
  kept = searched[1].carry
  # Those of the first block have 3 channels or 1, of the second 4 or 1.
  assert (
    found['parameters'][BLOCKS[0]]['k 1']
    > found['parameters'][BLOCKS[0]]['k 0.4']
  )
  smallest = found['chosen']['0.9']
  assert set(smallest.values()) == {'k 0.4'}
  for drop in ('0.01', '0.9'):
    model = kept[f'drop {drop}']
    for name, role in found['chosen'][drop].items():
      _assert_close(
        model.variables['params'][name],
        kept[role].variables['params'][name],
        rtol=0,
        atol=0,
      )
  assert kept['student'].network == kept['drop 0.9'].network


def test_a_searchs_students_and_their_rivals_have_statistics_of_their_own(
  searched,
):
  measured, ended = searched
  for role in ('k 0.4', 'k 1'):
    before, after = (x.carry[role].variables for x in (measured, ended))
    chex.assert_trees_all_equal(after['params'], before['params'])
    moved = jax.tree.map(
      lambda a, b: np.abs(a - b).max() > 0,
      after['batch_stats'],
      before['batch_stats'],
    )
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'multipliers': ()}, 'multipliers: wanted at least one, got none'),
    ({'multipliers': (0.5, 0.5)}, 'has one twice'),
    ({'drops': (1.5,)}, r'drops: 1.5 is no share in \(0, 1\)'),
  ],
)
def test_a_search_without_a_choice_is_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    student_search.student_search(recipe, **arguments)


def test_a_search_without_validation_is_refused(recipe):
  with pytest.raises(UsageError, match=r'give data\.validation'):
    student_search.student_search(recipe._replace(validation_steps=0))


def test_a_multiplier_that_leaves_no_channel_is_refused(recipe, carry):
  carry = {**carry, 'student': whole(recipe)}
  method = student_search.student_search(recipe, multipliers=(0.1, 1.0))
  with pytest.raises(UsageError, match=r'leaves .* none of its 3'):
    method[0](carry)


def test_sparse_candidates_keep_the_zeros_of_their_level(
  recipe, carry, dataset
):
  """All begin as the teacher; of the student they make, zeros are not sizes."""
  base = {**carry, 'student': whole(recipe)}
  method = student_search.student_search(
    recipe,
    sparsities=(0.0, 0.5),
    by_layers=True,
    drops=(0.9,),
    neighbourhood_epochs=2,
    statistics_steps=0,
  )
  begun = loop.fit(method[:1], base, dataset, options=SILENT)
  kernel = layerwise.by_layers(carry['teacher']).variables['params']
  for role in ('sparsity 0', 'sparsity 0.5'):
    _assert_close(begun.carry[role].variables['params'], kernel, rtol=0, atol=0)
  fitted = loop.fit(method, base, dataset, options=SILENT)
  for role, share in (('sparsity 0', 0.0), ('sparsity 0.5', 0.5)):
    params = fitted.carry[role].variables['params'][f'{BLOCKS[1]}.conv2']
    kernel = np.asarray(params['conv']['kernel'])
    assert abs((kernel == 0).mean() - share) < 0.01
  found = fitted.reports['student_search.json']
  assert set(found['chosen']['0.9'].values()) == {'sparsity 0.5'}


def test_a_stack_is_spread_over_the_devices_of_a_mesh():
  """Three entries over an axis of one, two and four."""
  trees = [{'kernel': jnp.full((2, n), 1.0 + n)} for n in range(3)]

  def make(trees):
    whole = stacked.stack(trees, trees[2], stacked.devices())
    return stacked.spread(whole)['kernel']

  for count, constraints, entries in ((1, 0, 3), (2, 1, 4), (4, 1, 4)):
    mesh = jax.sharding.AbstractMesh((1, count), ('data', 'model'))
    with jax.sharding.use_abstract_mesh(mesh):
      found = jax.make_jaxpr(make)(trees)
    assert str(found).count('sharding_constraint') == constraints
    assert found.out_avals[0].shape == (entries, 2, 2)
  whole = stacked.stack(trees, trees[2], 4)
  for tree, back in zip(trees, stacked.unstack(whole, trees)):
    np.testing.assert_array_equal(back['kernel'], tree['kernel'])
  assert not whole['kernel'][3].any()
