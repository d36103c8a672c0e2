"""One call: the defaults that suit the images and the networks."""

import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.study.distilling import (
  announcement,
  compiling,
  sources,
  teacher_sections,
  teachers,
)


@pytest.mark.parametrize(
  ('network', 'mean'),
  [
    *(('efficientnet_lite0', 127.0), ('efficientnet_lite2', 127.0)),
    *(('resnet50', 123.675), ('efficientnet_b0', 123.675)),
  ],
)
def test_weights_of_efficientnet_lite_get_images_from_minus_1_to_1(
  network, mean
):
  assert teachers._standardisation(network)['mean'][0] == mean


@pytest.mark.parametrize(
  ('section', 'side', 'is_told'),
  [({}, 32, True), ({}, 128, False), ({'image_size': 224}, 32, False)],
)
def test_a_teacher_of_large_images_that_gets_small_ones_is_told(
  section, side, is_told
):
  network = {'name': 'efficientnet_lite0'}
  teacher = teacher_sections.Teacher(section, 'one', network, 1000)
  lines = [*announcement._small_images(teacher, side)]
  assert bool(lines) == is_told
  assert not is_told or '224 x 224' in lines[0]
  ten_classes = teacher._replace(outputs=10)
  assert not [*announcement._small_images(ten_classes, side)]


@pytest.mark.parametrize(
  ('sides', 'expected'),
  [
    ([(32, 32)], 32),
    ([(28, 40)], 28),
    ([(100, 120)], 96),
    ([(480, 640), (300, 300), (0, 0)], 224),
    ([(64, 64)], 64),
  ],
)
def test_the_size_of_images_suits_most_of_them(sides, expected):
  assert sources._size(np.array(sides), 'data') == expected


@pytest.mark.parametrize(
  ('count', 'batch', 'epochs'),
  [(29, 2, 143), (1440, 64, 91), (1_000_000, 64, 5), (2, 1, 200)],
)
def test_the_defaults_suit_the_number_of_images(count, batch, epochs):
  assert compiling._batch_size(count) == batch
  assert compiling._epochs(count, batch) == epochs


@pytest.mark.parametrize(
  ('section', 'steps', 'momentum'),
  [
    ({'name': 'mobilenet_v3_small'}, 660, 0.9793),
    ({'name': 'mobilenet_v3_small'}, 2000, None),
    ({'name': 'mobilenet_v3_small', 'momentum': 0.99}, 660, 0.99),
    ({'name': 'resnet8'}, 660, None),
    ({'name': 'my_file:my_function'}, 1, None),
  ],
)
def test_running_statistics_forget_their_initial_values(
  section, steps, momentum
):
  """A variance of 1 is large beside those of depthwise convolutions."""
  short = compiling.with_short_memory(section, steps)
  assert short.get('momentum') == momentum
  share = {'name': 'scaled', 'network': section, 'share': 0.5}
  nested = compiling.with_short_memory(share, steps)
  assert nested == {**share, 'network': short}


def test_large_images_are_cut_and_small_ones_padded():
  assert compiling._augment((32, 32)) == {'name': 'crop_flip', 'padding': 4}
  assert compiling._augment((96, 96))['name'] == 'imagenet'
  assert compiling._augment((96, 128))['name'] == 'crop_flip'


def test_transformers_are_trained_with_adamw():
  vit = jd.networks.create(
    'vit', num_classes=2, width=8, depth=1, heads=1, patch=4
  )
  assert compiling._optimizer(vit, 64, 'kd') == ('adamw', 1e-3)
  resnet = jd.networks.create('resnet8', num_classes=2)
  assert compiling._optimizer(resnet, 32, 'kd') == ('sgd', 0.05)
  vectors = compiling._optimizer(resnet, 32, 'embedding')
  assert vectors == ('sgd', 0.25)
