"""What exported files give of each task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment
from jaxdistill.losses.numerics import bilinear
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import dense_heads
from jaxdistill.study import predictors, stablehlo
from jaxdistill.study.formats import source as source_lib
from jaxdistill.tasks import classification, depth, segmentation

SIZE = (8, 12)
IMAGE = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
STANDARDIZE = augment.standardize((100.0,) * 3, (50.0,) * 3)


def source(task, *, num_classes=3, auxiliary=True):
  groups = (
    jd.Stage('stem', layers.ConvUnit(2, stride=2)),
    jd.Stage('group1', layers.ConvUnit(2, stride=2)),
  )
  network = jd.Network((*groups, jd.Stage('pool', layers.Pool())))
  network = dense_heads.fcn(
    network, num_classes=num_classes, dropout=0.0, auxiliary=auxiliary
  )
  image = {'image': jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)}
  variables = graph.init(network, jax.random.key(0), image)
  return source_lib.Source(
    Model(network, variables), STANDARDIZE, (*SIZE, 3), {}, task.final
  )


@pytest.fixture(scope='module')
def segmenter():
  return source(segmentation())


def test_a_segmenter_gives_the_main_logits_at_the_size_of_the_image(segmenter):
  outputs = stablehlo.outputs(
    segmenter.model.network,
    segmenter.preprocess,
    segmenter.final,
    segmenter.model.variables,
    IMAGE,
  )
  image = STANDARDIZE(jax.random.key(0), {'image': IMAGE})['image']
  logits = jax.jit(graph.apply, static_argnums=0)(*segmenter.model, image)
  assert logits['head'].shape == (2, 2, 3, 3)
  np.testing.assert_allclose(outputs, bilinear(logits['head'], SIZE), rtol=1e-5)


def test_a_segmenter_of_raw_images_predicts_a_class_for_each_pixel(segmenter):
  predictor = predictors.of_model(
    segmenter.model, STANDARDIZE, (*SIZE, 3), segmentation(), ()
  )
  maps = predictor(IMAGE)
  assert maps.shape == (2, *SIZE)
  np.testing.assert_array_equal(maps, predictor.outputs(IMAGE).argmax(-1))
  with pytest.raises(UsageError, match=r'expected uint8 \[N, 8, 12, 3\]'):
    predictor(IMAGE[0])
  with pytest.raises(UsageError, match="got the task 'segmentation'"):
    predictor.probabilities(IMAGE)


def test_a_program_holds_what_the_task_gives(segmenter):
  program = stablehlo.to_stablehlo(
    segmenter.model,
    segmenter.image_shape,
    preprocess=segmenter.preprocess,
    final=segmenter.final,
    platforms=('cpu',),
  )
  (output,) = jax.export.deserialize(bytearray(program)).out_avals
  assert output.shape[1:] == (*SIZE, 3)


@pytest.mark.parametrize('auxiliary', [False, True])
def test_other_formats_take_a_segmenter_with_an_auxiliary_head(auxiliary):
  program = source_lib.program(
    source(segmentation(), auxiliary=auxiliary), batch_size=2
  )
  (output,) = jax.eval_shape(program.function, program.image)
  assert output.shape == (2, *SIZE, 3)


def test_depths_have_the_size_of_the_image():
  made = source(depth(), num_classes=1, auxiliary=False)
  program = source_lib.program(made, batch_size=2)
  (output,) = jax.eval_shape(program.function, program.image)
  assert output.shape == (2, *SIZE, 1)


def test_logits_of_a_classifier_stay_as_they_are():
  logits = np.ones((2, 5))
  assert classification().final(logits, SIZE) is logits
