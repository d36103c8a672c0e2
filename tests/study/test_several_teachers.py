"""Several teachers at once: scales, calls, configs, maps and exports."""

import copy

import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import objectives
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import pooling
from jaxdistill.objectives import embedding_terms
from jaxdistill.study import build, config, workdir
from jaxdistill.study.distilling import call


def model_of(width, seed=0, scale=1.0):
  """A model that gives vectors of a length and a scale."""
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('vector', layers.Classifier(width)),
    ),
    ('vector',),
  )
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}
  variables = graph.init(network, jax.random.key(seed), image)
  head = variables['params']['vector']
  variables['params']['vector'] = jax.tree.map(lambda x: scale * x, head)
  return Model(network, variables)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """Files of two teachers: of 3 numbers, and of 5 that are 100 times larger."""
  place = tmp_path_factory.mktemp('teachers')
  jd.save(place / 'a.safetensors', model_of(3), {'class_scores': False})
  large = model_of(5, 1, 100.0)
  jd.save(place / 'b.safetensors', large, {'class_scores': False})
  return [str(place / name) for name in ('a.safetensors', 'b.safetensors')]


@pytest.fixture
def joined(files, flat, tmp_path, planned):
  return planned(flat, teacher=files, student='resnet8', out=tmp_path)


def test_a_call_with_several_teachers_joins_their_vectors(
  joined, files, tmp_path, flat, planned, capsys
):
  assert [row.label for row in joined.rows] == ['embedding']
  assert joined.task.name == 'embedding'
  assert joined.networks['student'].stages[-1].module.num_classes == 8
  kept = config.load(str(tmp_path / 'config.py'))
  sections = [dict(part) for part in kept['teacher']['joined']]
  assert sections == [{'checkpoint': path} for path in files]
  again = build.plan(kept)
  assert [r.resolved for r in again.rows] == [r.resolved for r in joined.rows]
  planned(flat, teacher=files, student='resnet8', out=tmp_path, show=True)
  assert f'teacher: {files[0]} + {files[1]}, ' in capsys.readouterr().err


def test_every_teacher_has_the_same_share_whatever_its_scale(joined):
  images = joined.dataset.splits['train']['image']
  batch = joined.preprocess(jax.random.key(0), {'image': images})
  vectors = np.asarray(graph.apply(*joined.teacher, batch['image']))
  assert vectors.shape == (len(images), 8)
  for part, alone in (
    (vectors[:, :3], model_of(3)),
    (vectors[:, 3:], model_of(5, 1, 100.0)),
  ):
    np.testing.assert_allclose(part.mean(0), 0, atol=1e-5)
    assert (part**2).sum(-1).mean() == pytest.approx(1, rel=1e-4)
    own = np.asarray(graph.apply(*alone, batch['image']))
    centred = own - own.mean(0)
    length = np.sqrt((centred**2).sum(-1).mean())
    np.testing.assert_allclose(part, centred / length, atol=2e-4)


def test_a_row_continues_if_the_files_of_its_teachers_have_moved(joined):
  resolved = joined.rows[0].resolved
  moved = copy.deepcopy(resolved)
  moved['teacher']['teacher2']['checkpoint'] = 'elsewhere'
  assert workdir.without_places(moved) == workdir.without_places(resolved)
  moved['teacher']['teacher2']['checksum'] += 1
  assert workdir.without_places(moved) != workdir.without_places(resolved)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda files: {'teacher': files[:1]}, 'at least two, got a list of 1'),
    (lambda files: {'teacher': []}, 'at least two, got a list of 0'),
    (lambda files: {'teacher': [*files, 'resnet8']}, "got 'resnet8' without"),
    (lambda files: {'teacher': files, 'student': 0.5}, 'name a network'),
    (lambda files: {'teacher': files, 'method': 'kd'}, 'gives vectors'),
  ],
  ids=['one', 'none', 'untrained', 'share', 'method'],
)
def test_several_teachers_that_cannot_be_joined_are_refused(
  change, words, files, flat, tmp_path
):
  keys = {'student': 'resnet8', 'show': False, 'formats': (), **change(files)}
  with pytest.raises(jd.UsageError, match=words) as error:
    jd.distill(flat, out=tmp_path / 'o', **keys)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
  ('section', 'words'),
  [
    ({'joined': ['a']}, 'with checkpoint or weights'),
    ({'joined': [{'name': 'resnet8'}] * 2}, 'with checkpoint or weights'),
    ({'joined': [{}, {}], 'image_size': 8}, "no 'image_size' beside"),
    ({'joined': 'ab'}, 'expected a list'),
  ],
)
def test_a_section_of_several_teachers_is_checked(section, words, joined):
  with pytest.raises(jd.UsageError, match=words):
    build.plan({**joined.config, 'teacher': section})


def test_vectors_of_several_teachers_are_no_scores_of_classes(joined):
  keys = {**joined.config, 'task': {'name': 'imitation'}}
  keys['methods'] = {'kd': {'name': 'kd', 'label_weight': 0.0}}
  with pytest.raises(jd.UsageError, match='gives standardised vectors'):
    build.plan(keys)


def test_the_option_teacher_may_be_given_several_times(cli, monkeypatch):
  calls = []
  monkeypatch.setattr(
    call, 'distill', lambda data, **keys: calls.append(keys['teacher']) or ''
  )
  for names in (['a'], ['a', 'b']):
    options = [f'--teacher={name}' for name in names]
    code, _, err = cli.call('distill', 'd', *options, '--out=o')
    assert code == 0, err
  assert calls == ['a', ['a', 'b']]


def pair_of(plan, network):
  recipe = jd.recipe(plan.dataset, plan.task, epochs=1, batch_size=2)
  return objectives.pair_of(network, plan.teacher.network, recipe)


@pytest.mark.parametrize(
  ('map_pairs', 'names'),
  [
    ((('stem', 'teacher1.stem'),), ['positions1']),
    (
      (('stem', 'teacher1.stem'), ('stem', 'teacher2.stem')),
      ['positions1', 'positions2'],
    ),
  ],
)
def test_maps_of_every_teacher_can_be_learned_beside_the_vectors(
  joined, map_pairs, names
):
  objective = objectives.embedding(map_weight=0.5, map_pairs=map_pairs)
  student = model_of(8).network._replace(outputs=())
  term = objective(pair_of(joined, student))
  assert [stage.name for stage in term.adapters] == names
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(2, 2, 8))
  maps = rng.normal(size=(2, 2, 4, 4, 4))
  features = {
    'student/vector': vectors[0],
    'teacher/vectors': vectors[1],
    **{name: maps[0] for name in names},
    **{f'teacher/{name}': maps[1] for _, name in map_pairs},
  }

  def distance(x, y):
    x, y = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y))
    return 1 - (x * y).sum(-1)

  expected = distance(*vectors) + 0.5 * distance(*maps).mean((1, 2))
  np.testing.assert_allclose(term.loss(features, {}, {}), expected, rtol=1e-5)


@pytest.mark.parametrize('shape', [(3, 3, 6), (5, 2, 4), (8, 8, 1)])
def test_a_students_map_gets_the_size_and_channels_of_the_teachers(shape):
  module = embedding_terms.adapters.Positions(shape)
  x = jax.ShapeDtypeStruct((2, 4, 4, 5), np.float32)
  outputs, _ = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x, train=True), x
  )
  assert outputs.shape == (2, *shape)


def test_a_student_without_its_adapter_gives_its_own_vector():
  network, variables = model_of(8)
  model = Model(network._replace(outputs=()), variables)
  feature = pooling.without_head(model)
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype('float32')
  features, _ = graph.run(*model, {'image': image})
  np.testing.assert_array_equal(graph.apply(*feature, image), features['pool'])
  assert 'vector' not in feature.variables['params']
  for wrong in (
    Model(network, variables),
    Model(Network(network.stages[:1]), variables),
  ):
    with pytest.raises(jd.UsageError, match='last stage reads the stage'):
      pooling.without_head(wrong)
