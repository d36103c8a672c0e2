"""Files for other runtimes answer as the student; skipped without these."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.networks.layers import attention
from jaxdistill.networks.surgery import detectors, two_stage
from jaxdistill.study import stablehlo
from jaxdistill.study.formats import table, tflite
from jaxdistill.study.formats.source import Source
from jaxdistill.tasks import detection, two_stage_detection

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
# Depthwise and grouped convolutions, average pools and shuffled channels;
# attention with layer norms; and shortcuts that append channels of zeros.
NETWORKS = {
  'cifar_shufflenet_v1': {
    'stem_width': 12,
    'widths': (24, 48, 96),
    'blocks': (2, 1, 1),
  },
  'vit': {'width': 8, 'depth': 1, 'heads': 2, 'patch': 4},
  'pyramidnet': {'depth': 11, 'widening': 12},
}


def installed(kind):
  for package in table.FORMATS[kind].packages:
    pytest.importorskip(package)


@pytest.fixture(scope='module')
def images():
  """Raw images that are larger than what the networks read."""
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (40, 10, 10, 3), dtype=np.uint8)


@pytest.fixture(scope='module', params=NETWORKS)
def source(request):
  network = networks.NETWORKS[request.param](
    num_classes=7, **NETWORKS[request.param]
  )
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  variables = networks.init(network, jax.random.key(0), {'image': image})
  preprocess = augment.chain(
    augment.center(8, 8), augment.standardize(MEAN, STD)
  )
  return Source(Model(network, variables), preprocess, (10, 10, 3), {})


@pytest.fixture(scope='module')
def expected(source, images):
  return np.asarray(
    stablehlo.outputs(
      source.model.network,
      source.preprocess,
      source.final,
      source.model.variables,
      jnp.asarray(images),
    )
  )


@pytest.mark.parametrize('kind', ['onnx', 'tflite'])
def test_a_file_gives_the_students_logits_for_any_number_of_raw_images(
  kind, source, images, expected, tmp_path
):
  installed(kind)
  path = tmp_path / f'student.{kind}'
  table.write(source, path, kind)
  assert [file.name for file in tmp_path.iterdir()] == [path.name]
  run = table.FORMATS[kind].read(source, path)
  for count in (1, 3, 5):
    np.testing.assert_allclose(run(images[:count]), expected[:count], atol=1e-4)


def backbone(groups):
  stages = [
    Stage('stem', layers.ConvUnit(4, stride=2)),
    *(
      Stage(f'group{i + 1}', layers.ConvUnit(4, stride=2))
      for i in range(groups)
    ),
    Stage('pool', layers.Pool()),
  ]
  return Network(tuple(stages))


@pytest.fixture(scope='module')
def detector():
  """A detector of two classes whose scores differ between places."""
  network = detectors.retinanet(
    backbone(3), num_classes=2, width=4, depth=0, prior=0.4
  )
  image = jax.ShapeDtypeStruct((1, 44, 60, 3), jnp.float32)
  variables = networks.init(network, jax.random.key(0), {'image': image})
  head = variables['params']['head']
  for name in ('classes', 'boxes'):
    head[name]['kernel'] *= 20.0
  return Source(
    Model(network, variables),
    augment.standardize(MEAN, STD),
    (44, 60, 3),
    {},
    detection().final,
  )


@pytest.fixture(scope='module')
def two_stage_detector():
  """A detector in two stages with random weights."""
  network = two_stage.faster_rcnn(
    backbone(4),
    num_classes=2,
    width=4,
    head_width=8,
    size=3.0,
    count=6,
    candidates=8,
  )
  rng = np.random.default_rng(1)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  variables = jax.tree.map(
    lambda x: (
      rng.normal(0, 0.3, x.shape) if x.ndim > 1 else rng.uniform(0, 1, x.shape)
    ).astype(x.dtype),
    graph.variable_shapes(network, {'image': image}),
  )
  return Source(
    Model(network, variables),
    augment.standardize(MEAN, STD),
    (32, 32, 3),
    {},
    two_stage_detection(least_score=0.0).final,
  )


@pytest.mark.parametrize(
  ('kind', 'least'), [('detector', 30), ('two_stage_detector', 5)]
)
def test_an_onnx_file_of_a_detector_finds_the_students_objects(
  kind, least, request, tmp_path
):
  installed('onnx')
  detector = request.getfixturevalue(kind)
  path = tmp_path / 'student.onnx'
  table.write(detector, path, 'onnx')
  run = table.FORMATS['onnx'].read(detector, path)
  height, width, _ = (side // 4 for side in detector.image_shape)
  small = np.random.default_rng(0).integers(
    0, 256, (3, height, width, 3), np.uint8
  )
  images = small.repeat(4, axis=1).repeat(4, axis=2)
  expected = stablehlo.outputs(
    detector.model.network,
    detector.preprocess,
    detector.final,
    detector.model.variables,
    jnp.asarray(images),
  )
  assert (np.asarray(expected['classes']) >= 0).sum() > least
  for count in (1, 3):
    found = run(images[:count])
    assert found['boxes'].shape == (count, 100, 4)
    stablehlo.check(path, found, {k: v[:count] for k, v in expected.items()})


def test_tflite_refuses_a_network_of_several_outputs(detector, tmp_path):
  with pytest.raises(UsageError, match='expected a network with one output'):
    table.write(detector, tmp_path / 'student.tflite', 'tflite')


@pytest.mark.parametrize('int8', ['weights', 'full'])
def test_a_quantised_file_has_integers_and_answers_almost_as_the_student(
  int8, source, images, expected, tmp_path
):
  installed('tflite')
  if int8 == 'full' and isinstance(
    source.model.network.stages[1].module, attention.TransformerBlock
  ):
    pytest.skip('LiteRT ends the process')
  path = tmp_path / 'student.tflite'
  tflite.write(source, path)
  tflite.quantize(path, images, int8)
  interpreter = pytest.importorskip('ai_edge_litert.interpreter')
  details = interpreter.Interpreter(str(path)).get_tensor_details()
  # Weights of convolutions have four axes, and those of dense layers two.
  kinds = [detail['dtype'] for detail in details if len(detail['shape']) > 1]
  assert kinds.count(np.int8) > 3
  outputs = tflite.read(path)(images)
  assert outputs.shape == expected.shape and np.isfinite(outputs).all()
  # With random weights, features of 8 bits tell images hardly apart.
  if int8 == 'weights':
    assert np.abs(outputs - expected).max() < expected.std() / 2
  assert not np.array_equal(outputs, expected)


def test_an_export_writes_latencies_that_the_report_shows(cli, config, copied):
  installed('onnx')
  installed('tflite')
  cli.fit(config, copied, '--mode=export', '--format=onnx,tflite', '--row=kd')
  cli.fit(
    config,
    copied,
    '--mode=export',
    '--format=tflite',
    '--int8=full',
    '--row=kd',
  )
  folder = copied / 'export'
  described = {
    kind: json.loads((folder / f'kd-0-last{kind}.json').read_text())
    for kind in ('.onnx', '.tflite', '-int8-full.tflite')
  }
  for description in described.values():
    assert description['latency']['student'] > 0
    assert description['latency']['teacher'] > 0
    assert description['bytes'] > 0
  assert set(described['-int8-full.tflite']['scores']) == {'validation', 'test'}
  page = (copied / 'report.html').read_text()
  for label in ('kd (onnx)', 'kd (tflite)', 'teacher (onnx)', 'int8 full'):
    assert label in page
