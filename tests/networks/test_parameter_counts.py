"""Every architecture has the published number of parameters and shapes."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxdistill import networks
from jaxdistill.networks import layers
from jaxdistill.networks.surgery.embedding import embedded


@pytest.fixture(autouse=True)
def zero_kernels(monkeypatch):
  """Makes kernels zero: random numbers take long to trace, and are not read."""
  zeros = dict.fromkeys(layers.KERNELS, jax.nn.initializers.zeros)
  monkeypatch.setattr(layers, 'KERNELS', zeros)


@functools.cache
def trace_stage(module, shapes):
  """Returns (parameters, {output: shape}) of a stage; equal ones share it."""
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  init = functools.partial(module.init_with_output, train=False)
  outputs, variables = jax.eval_shape(init, jax.random.key(0), *inputs)
  outputs = outputs if isinstance(outputs, dict) else {'': outputs}
  count = networks.count_parameters({'params': {}, **variables})
  return count, {key: x.shape for key, x in outputs.items()}


def trace(network, size):
  """Returns (parameters, {stage: shape without the batch}) of a network."""
  shape, total, shapes = (1, size, size, 3), 0, {}
  for stage in network.stages:
    count, outputs = trace_stage(stage.module, (shape,))
    shape, total = outputs[''], total + count
    shapes[stage.name] = shape[1:]
    group = stage.name.partition('.')[0]
    shapes[group] = shape[1:]
  return total, shapes


# Network and arguments -> parameters for 10 and for 100 classes.
CIFAR = {
  'resnet8': ({}, 78_042, 83_892),
  'resnet14': ({}, 175_258, 181_108),
  'resnet20': ({}, 272_474, 278_324),
  'resnet32': ({}, 466_906, 472_756),
  'resnet44': ({}, 661_338, 667_188),
  'resnet56': ({}, 855_770, 861_620),
  'resnet110': ({}, 1_730_714, 1_736_564),
  'resnet8x4': ({}, 1_210_410, 1_233_540),
  'resnet32x4': ({}, 7_410_730, 7_433_860),
  'resnet20 A': ({'shortcut': 'A'}, 269_722, 275_572),
  'resnet56 A': ({'shortcut': 'A'}, 853_018, 858_868),
  'resnet110 A': ({'shortcut': 'A'}, 1_727_962, 1_733_812),
  'preactivation_resnet56': ({}, 590_426, 613_556),
  'preactivation_resnet110': ({}, 1_146_842, 1_169_972),
  'preactivation_resnet164': ({}, 1_703_258, 1_726_388),
  'wrn_16_1': ({}, 175_066, 180_916),
  'wrn_16_2': ({}, 691_674, 703_284),
  'wrn_16_4': ({}, 2_748_890, 2_772_020),
  'wrn_40_1': ({}, 563_930, 569_780),
  'wrn_40_2': ({}, 2_243_546, 2_255_156),
  'wrn_28_2': ({}, 1_467_610, 1_479_220),
  'wrn_28_4': ({}, 5_849_050, 5_872_180),
  'wrn_28_10': ({}, 36_479_194, 36_536_884),
  'wrn_22_4': ({}, 4_298_970, 4_322_100),
  'wrn_10_1': ({}, 77_850, 83_700),
  'vgg8': ({}, 3_918_858, 3_965_028),
  'vgg11': ({}, 9_231_114, 9_277_284),
  'vgg13': ({}, 9_416_010, 9_462_180),
  'vgg16': ({}, 14_728_266, 14_774_436),
  'vgg19': ({}, 20_040_522, 20_086_692),
  'cifar_mobilenet_v2': ({}, 697_546, 812_836),
  'cifar_mobilenet_v2 x1': ({'width': 1.0}, 2_237_770, 2_353_060),
  'cifar_shufflenet_v1': ({}, 862_768, 949_258),
  'cifar_shufflenet_v2': ({}, 1_263_278, 1_355_528),
  'densenet40_12': ({}, 1_059_298, 1_100_428),
  'densenet40_12 narrow': ({'stem_width': 16}, 1_019_722, 1_060_132),
  'cifar_resnet18': ({}, 11_173_962, 11_220_132),
  'cifar_resnet34': ({}, 21_282_122, 21_328_292),
  'cifar_resnet50': ({}, 23_520_842, 23_705_252),
  'cifar_resnet101': ({}, 42_512_970, 42_697_380),
  'cifar_resnet152': ({}, 58_156_618, 58_341_028),
}
# These have four poolings and no biases, as in network slimming.
SLIM = {'pools': (True,) * 4, 'use_bias': False}
CIFAR |= {
  'vgg11 slim': (SLIM, 9_228_362, 9_274_532),
  'vgg13 slim': (SLIM, 9_413_066, 9_459_236),
  'vgg16 slim': (SLIM, 14_724_042, 14_770_212),
  'vgg19 slim': (SLIM, 20_035_018, 20_081_188),
}
# These are published only for 100 classes.
CIFAR_100 = {
  'pyramidnet110_64': ({}, 1_725_300),
  'pyramidnet200_240': ({}, 26_844_952),
  'pyramidnet200_300': ({}, 40_324_900),
  'pyramidnet': (
    {'depth': 110, 'widening': 84, 'bottleneck': False},
    3_913_536,
  ),
  'cifar_densenet121': ({}, 7_048_548),
}
# The totals of torchvision and timm, for 1000 classes.
IMAGENET = {
  'resnet18': ({}, 11_689_512),
  'resnet34': ({}, 21_797_672),
  'resnet50': ({}, 25_557_032),
  'resnet101': ({}, 44_549_160),
  'resnet152': ({}, 60_192_808),
  'imagenet_vgg 16': ({'depth': 16}, 138_365_992),
  'imagenet_vgg 11': ({'depth': 11, 'norm': False}, 132_863_336),
  'mobilenet_v1': ({}, 4_231_976),
  'mobilenet_v2': ({}, 3_504_872),
  'mobilenet_v3_small': ({}, 2_542_856),
  'shufflenet_v2': ({}, 2_278_604),
  'efficientnet_b0': ({}, 5_288_548),
  'densenet121': ({}, 7_978_856),
  'vit_b16': ({}, 86_567_656),
  'deit_tiny': ({}, 5_717_416),
  'vit_b32': ({}, 88_224_232),
  'vit_l16': ({}, 304_326_632),
  'vit_h14': ({}, 632_045_800),
  'convnext_tiny': ({}, 28_589_128),
  'convnext_small': ({}, 50_223_688),
  'convnext_base': ({}, 88_591_464),
  'convnext_large': ({}, 197_767_336),
  'efficientnet_lite0': ({}, 4_652_008),
  'efficientnet_lite1': ({}, 5_416_680),
  'efficientnet_lite2': ({}, 6_092_072),
  # Without the mask token of its training, of 384 parameters.
  'dinov2_small': ({'head': False}, 22_056_576 - 384),
  'vit': ({'width': 384, 'heads': 6}, 22_050_664),
}


def make(name, **arguments):
  return networks.NETWORKS[name.partition(' ')[0]](**arguments)


@pytest.mark.parametrize('name', CIFAR)
def test_small_image_networks_have_the_published_parameters(name):
  arguments, ten, hundred = CIFAR[name]
  assert trace(make(name, num_classes=10, **arguments), 32)[0] == ten
  assert trace(make(name, num_classes=100, **arguments), 32)[0] == hundred


@pytest.mark.parametrize('name', CIFAR_100)
def test_networks_for_a_hundred_classes_have_the_published_parameters(name):
  arguments, count = CIFAR_100[name]
  assert trace(make(name, num_classes=100, **arguments), 32)[0] == count


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet_networks_have_the_published_parameters(name):
  arguments, count = IMAGENET[name]
  assert trace(make(name, **arguments), 224)[0] == count


def test_all_parts_of_blocks_have_the_published_parameters():
  def sizes(name):
    shape, counts = (1, 224, 224, 3), []
    for stage in make(name).stages:
      count, outputs = trace_stage(stage.module, (shape,))
      shape = outputs['']
      counts += [count] if '.' in stage.name else []
    return counts

  assert sizes('mobilenet_v3_small') == [
    *(744, 3_864, 5_416, 13_736, 57_264, 57_264, 21_968, 29_800),
    *(91_848, 294_096, 294_096),
  ]
  assert sizes('efficientnet_b0') == [
    *(1_448, 6_004, 10_710, 15_350, 31_290, 37_130, 102_900, 102_900),
    *(126_004, 208_572, 208_572, 262_492, 587_952, 587_952, 587_952, 717_232),
  ]


# Network and arguments, size of the image -> channels and size of features.
MAPS = {
  'cifar_mobilenet_v2': (
    {},
    32,
    {
      'stem': (16, 16),
      'group2': (12, 16),
      'group3': (16, 8),
      'group5': (48, 4),
      'group7': (160, 2),
      'last': (1280, 2),
    },
  ),
  'cifar_shufflenet_v1': (
    {},
    32,
    {'group1': (240, 16), 'group2': (480, 8), 'group3': (960, 4)},
  ),
  'cifar_shufflenet_v2': (
    {},
    32,
    {'group1': (116, 16), 'group2': (232, 8), 'group3': (464, 4)},
  ),
  'cifar_densenet121': (
    {},
    32,
    {
      'group1': (256, 32),
      'group2': (512, 16),
      'group3': (1024, 8),
      'group4': (1024, 4),
    },
  ),
  'cifar_resnet50': (
    {},
    32,
    {
      'group1': (256, 32),
      'group2': (512, 16),
      'group3': (1024, 8),
      'group4': (2048, 4),
    },
  ),
  'pyramidnet200_240': ({}, 32, {'group3': (1024, 8)}),
  'pyramidnet200_300': ({}, 32, {'group3': (1264, 8)}),
  'pyramidnet110_64': ({}, 32, {'group3': (320, 8)}),
  'mobilenet_v1': (
    {},
    224,
    {
      'group2': (128, 56),
      'group3': (256, 28),
      'group4': (512, 14),
      'group5': (1024, 7),
    },
  ),
  'vgg13': (
    {},
    32,
    {'group1': (64, 32), 'group4': (512, 4), 'group5': (512, 4)},
  ),
  'vgg13 slim': (SLIM, 32, {'group4': (512, 4), 'group5': (512, 2)}),
  'resnet50': ({}, 224, {'stem': (64, 56), 'group4': (2048, 7)}),
  'mobilenet_v3_small': ({}, 224, {'group3': (48, 14), 'last': (576, 7)}),
  # With other strides, the maps of an ImageNet network suit small images.
  'efficientnet_b0': (
    {'stem_stride': 1, 'strides': (1, 1, 2, 2, 1, 2, 1)},
    32,
    {'group2': (24, 32), 'last': (1280, 4)},
  ),
  'resnet18': ({'stem_stride': 1}, 32, {'stem': (64, 16), 'group4': (512, 2)}),
  'resnet18 32': (
    {'stem_stride': 1, 'stem_pool': False},
    32,
    {'stem': (64, 32), 'group4': (512, 4)},
  ),
  'cifar_resnet18': ({'stem_pool': True}, 32, {'stem': (64, 16)}),
  'densenet121': (
    {'stem_stride': 1, 'stem_pool': False},
    32,
    {'stem': (64, 32), 'group4': (1024, 4)},
  ),
  'shufflenet_v2': (
    {'stem_stride': 1, 'stem_pool': False},
    32,
    {'stem': (24, 32), 'group3': (464, 4)},
  ),
  'imagenet_vgg': (
    {'depth': 11, 'pools': (False, True, True, False, False)},
    32,
    {'group2': (128, 32), 'group5': (512, 8)},
  ),
}


@pytest.mark.parametrize('name', MAPS)
def test_feature_maps_have_the_published_shapes(name):
  arguments, size, expected = MAPS[name]
  _, shapes = trace(make(name, **arguments), size)
  found = {feature: shapes[feature] for feature in expected}
  assert found == {f: (n, n, c) for f, (c, n) in expected.items()}


def test_a_classifier_of_faces_has_an_embedding_of_256_entries():
  counts = [
    trace(embedded(make(name, num_classes=10_575)), 112)[0]
    for name in ('resnet18', 'resnet50')
  ]
  assert counts == [14_025_615, 26_750_351]


def test_the_last_pooling_of_a_vgg_can_be_omitted():
  def flat(*pools):
    network = make('imagenet_vgg 11', depth=11, width=1 / 64, pools=pools)
    return networks.shapes(
      network, {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
    )['pool'].shape

  assert flat(*(True,) * 5) == (1, 8)
  assert flat(*(True,) * 4, False) == (1, 8 * 2 * 2)
