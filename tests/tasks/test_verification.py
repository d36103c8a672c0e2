"""The task `verification`: what it trains with, measures, refuses and gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdistill as jd
from jaxdistill import losses
from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery.embedding import embedded
from jaxdistill.objectives import pairs
from jaxdistill.study import stablehlo
from jaxdistill.study.formats import source as source_lib
from jaxdistill.tasks import verification

RNG = np.random.default_rng(0)
IMAGE = {'image': jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)}
OUTPUTS = {
  'head': RNG.normal(size=(4, 3)).astype(np.float32),
  'embedding': RNG.normal(size=(4, 5)).astype(np.float32),
  'head.scale': np.full((4, 1), 16.0, np.float32),
}
BATCH = {'label': np.array([0, 1, 2, 1])}


def network(**options):
  stages = (
    jd.Stage('group1', layers.ConvUnit(4, stride=2)),
    jd.Stage('pool', layers.Pool()),
    jd.Stage('logits', layers.Classifier(3, dropout=0.1)),
  )
  return embedded(jd.Network(stages), size=5, **options)


def dataset(train=6, test=6, images=8, *, validation=0, **protocol):
  """Random images of as many identities, with as many images of each."""
  identity = np.repeat(np.arange(train), images)
  test_identity = np.repeat(np.arange(train, train + test), images)
  return jd.data.from_identities(
    {
      'image': RNG.integers(0, 256, (len(identity), 8, 8, 1), np.uint8),
      'identity': identity,
    },
    {
      'image': RNG.integers(0, 256, (len(test_identity), 8, 8, 1), np.uint8),
      'identity': test_identity,
      **protocol,
    },
    validation=validation,
  )


def test_an_embedding_comes_before_the_classifier():
  linear, cosine = network(), network(scale=16)
  shapes = graph.shapes(linear, IMAGE)
  assert shapes['embedding'].shape == (2, 5)
  assert shapes['head'].shape == (2, 3)
  assert linear.outputs == ('head', 'embedding')
  assert cosine.outputs == ('head', 'embedding', 'head.scale')
  for made in (linear, cosine):
    description = jd.networks.to_description(made)
    assert jd.networks.from_description(description) == made
    assert pairs.is_classifier(made)
    assert pairs.pooled_feature(made, 'student') == 'embedding'
  with pytest.raises(UsageError, match='expected a classifier whose last'):
    embedded(jd.Network(linear.stages[:-2]))
  for wrong in ({'size': 0}, {'scale': 0.0}, {'scale': -1}):
    with pytest.raises(UsageError, match=f'{next(iter(wrong))}: expected'):
      embedded(linear, **wrong)


def test_logits_are_scaled_cosines():
  module = layers.CosineClassifier(3, scale=16.0)
  x, kernel = OUTPUTS['embedding'], RNG.normal(size=(5, 3))
  variables = {'params': {'kernel': jnp.asarray(kernel, jnp.float32)}}
  features = module.apply(variables, x, train=False)
  cosines = x @ kernel / np.linalg.norm(x, axis=1)[:, None]
  cosines /= np.linalg.norm(kernel, axis=0)
  np.testing.assert_allclose(features[''], 16 * cosines, rtol=1e-5)
  assert (np.asarray(features['.scale']) == 16).all()


def test_training_uses_the_classifier_with_or_without_a_margin():
  target = np.eye(3, dtype=np.float32)[BATCH['label']]
  plain = optax.softmax_cross_entropy(OUTPUTS['head'], target)
  computed = verification().loss(OUTPUTS, BATCH)
  np.testing.assert_allclose(computed, plain, rtol=1e-6)
  for kind, margin in (('cosface', 0.2), ('arcface', 0.3)):
    task = verification(loss=kind, margin=margin)
    expected = getattr(losses, f'{kind}_loss')(
      OUTPUTS['head'] / 16, target, scale=16.0, margin=margin
    )
    np.testing.assert_allclose(task.loss(OUTPUTS, BATCH), expected, rtol=1e-6)


def test_a_network_without_the_outputs_is_refused():
  linear = {k: OUTPUTS[k] for k in ('head', 'embedding')}
  for name, outputs, message in (
    ('softmax', OUTPUTS['head'], "'head', such as 'embedded', got a single"),
    ('softmax', {'aux': OUTPUTS['head']}, "such as 'embedded', got aux"),
    ('cosface', linear, "'head.scale', such as 'embedded' with a scale"),
  ):
    with pytest.raises(UsageError, match=message):
      verification(loss=name).loss(outputs, BATCH)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'loss': 'cosfase'}, "'cosfase'; did you mean 'cosface'"),
    ({'score': 'rank2'}, "'rank2'; did you mean 'rank"),
    ({'margin': 0.3}, "margin: expected the loss 'cosface' or 'arcface' with"),
    ({'loss': 'arcface', 'margin': 4.0}, r'margin: expected a number in \[0'),
  ],
)
def test_an_option_that_does_not_exist_is_refused(options, message):
  with pytest.raises(UsageError, match=message):
    verification(**options)


def metrics(embedding, columns, **options):
  rows = verification(**options).statistics(
    {'embedding': embedding, 'head': embedding}, columns
  )
  return verification().summarize({k: np.asarray(v) for k, v in rows.items()})


def test_metrics_are_means_and_deviations_over_the_splits_of_a_protocol():
  label = np.repeat(np.arange(12), 10)
  vectors = RNG.normal(size=(12, 6))[label] + RNG.normal(size=(120, 6))
  one = metrics(vectors, {'label': label})
  assert one.keys() == {'tar@0.01', 'rank1', 'rank5'}
  noisy = vectors + 2 * RNG.normal(size=vectors.shape)
  other = metrics(noisy, {'label': label})
  both = metrics(
    np.concatenate([vectors, noisy]),
    {'label': np.tile(label, 2), 'protocol': np.repeat([1, 2], 120)},
  )
  for name, value in one.items():
    values = [value, other[name]]
    assert both[name] == pytest.approx(np.mean(values))
    assert both[f'{name}/sd'] == pytest.approx(np.std(values, ddof=1))


def test_a_template_is_the_mean_of_the_directions_of_its_images():
  # The long vector of the first image must not outweigh the second one.
  vectors = np.array([[100, 0], [0, 1], [1, 1], [-1, 0.5], [0.5, -1], [-1, -1]])
  columns = {
    'label': np.array([0, 0, 0, 1, 1, 1]),
    'template': np.array([7, 7, 3, 5, 5, 1]),
    'gallery': np.array([1, 1, 0, 1, 1, 0]),
  }
  assert metrics(vectors, columns) == {'rank1': 1.0, 'rank5': 1.0}
  del columns['template']
  columns['gallery'] = np.array([1, 0, 0, 1, 0, 0])
  assert metrics(vectors, columns)['rank1'] < 1.0


def test_the_splits_have_different_identities():
  made = dataset(12, 6, validation=4)
  verification(score='rank1').check(made)
  numbers = {k: {*s['label'].tolist()} for k, s in made.splits.items()}
  assert numbers == {
    'train': set(range(8)),
    'validation': set(range(8, 12)),
    'test': set(range(12, 18)),
  }
  assert made.num_classes == len(made.label_names) == 8


@pytest.mark.parametrize(
  ('split', 'other', 'message'),
  [
    (
      'train',
      'test',
      "in the split 'test' than in 'train', got 6 in both, for",
    ),
    (
      'train',
      'validation',
      "'validation' than in 'train', got 6 .*example '0'",
    ),
    ('test', 'validation', "'test' than in 'validation', got 6 in both"),
  ],
)
def test_identities_that_splits_share_are_refused(split, other, message):
  made = dataset()
  splits = {**made.splits, other: made.splits[split]}
  with pytest.raises(UsageError, match=message):
    verification(score='rank1').check(made._replace(splits=splits))


def test_too_few_pairs_for_the_score_are_refused_and_for_others_noted():
  few = dataset(images=3)
  with pytest.raises(
    UsageError, match=r"'tar@0.01' can be measured, got 18 genuine and 135 imp"
  ):
    verification().check(few)
  with pytest.raises(UsageError, match=r"split 'test' .*got no probe"):
    verification(score='rank1').check(dataset(images=1))
  alone = dataset(test=1, images=30)
  with pytest.raises(UsageError, match='got 435 genuine and 0 impostor'):
    verification().check(alone)
  verification(score='rank5').check(few)
  assert [note.split(' is ')[0] for note in verification().notes(few)] == [
    'verification: tar@0.01',
    'verification: tar@0.001',
  ]
  assert verification().notes(dataset(test=60, images=4)) == ()


@pytest.mark.parametrize(
  ('columns', 'message'),
  [
    ({'template': np.arange(48) // 12}, 'one label for all .*got 6 and 7'),
    (
      {'template': np.arange(48) // 4, 'gallery': np.arange(48) % 2},
      'one gallery for all images of a template .*got 0 and 1',
    ),
  ],
)
def test_templates_that_contradict_themselves_are_refused(columns, message):
  with pytest.raises(UsageError, match=f'template: expected {message}'):
    verification(score='rank1').check(dataset(**columns))


def test_models_agree_by_the_correlation_of_their_cosines():
  student, teacher = RNG.normal(size=(20, 6)), RNG.normal(size=(20, 6))
  teacher[:10] = student[:10]
  student, teacher = (
    x / np.linalg.norm(x, axis=1, keepdims=True) for x in (student, teacher)
  )
  upper = np.triu_indices(20, 1)
  expected = np.corrcoef(
    (student @ student.T)[upper], (teacher @ teacher.T)[upper]
  )[0, 1]
  task = verification()
  assert task.agreement(student, teacher) == pytest.approx(expected)
  rotation, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
  assert task.agreement(student, student @ rotation) == pytest.approx(1.0)
  same = np.tile(student[:1], (20, 1))
  assert task.agreement(same, same) == 1.0


def test_an_exported_program_gives_the_normalised_embedding():
  made = network(scale=16.0)
  variables = graph.init(made, jax.random.key(0), IMAGE)
  source = source_lib.Source(
    jd.Model(made, variables),
    augment.standardize((100.0,), (50.0,)),
    (8, 8, 1),
    {},
    verification().final,
  )
  images = RNG.integers(0, 256, (2, 8, 8, 1), np.uint8)
  given = np.asarray(
    stablehlo.outputs(made, source.preprocess, source.final, variables, images)
  )
  batch = source.preprocess(jax.random.key(0), {'image': images})
  vectors = np.asarray(
    jax.jit(graph.apply, static_argnums=0)(made, variables, batch['image'])[
      'embedding'
    ]
  )
  vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  np.testing.assert_allclose(given, vectors, rtol=1e-4, atol=1e-6)
  program = source_lib.program(source, batch_size=2)
  (output,) = jax.eval_shape(program.function, program.image)
  assert output.shape == (2, 5)
  # What a file gives is scored as the network's outputs are.
  label = np.array([0, 1])
  rows = verification().statistics(given, {'label': label})
  np.testing.assert_allclose(rows['embedding'], given, rtol=1e-6)
