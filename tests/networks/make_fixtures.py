"""Makes the fixtures of the parity tests: the outputs of PyTorch modules.

  python tests/networks/make_fixtures.py
  python tests/networks/make_fixtures.py --whole=/tmp/whole

It needs torch, torchvision, timm and safetensors. For each network it writes
NAME.safetensors (random weights under PyTorch's names) and
NAME.expected.safetensors (an image, the logits and features in inference mode,
and the name and arguments of the library's network). The committed networks are
narrow. With `--whole` the real architectures are written to a folder that is
not committed; the tests read it if JAXDISTILL_WHOLE_FIXTURES names it.
"""

import argparse
import json
import pathlib

import plain_modules
import rep_distiller
from safetensors.torch import save_file
import torch
from torch import nn

try:
  import torchvision
except RuntimeError:
  # The operators of torchvision were compiled for another build of PyTorch. No
  # network here uses them; they only have to be declared.
  library = torch.library.Library('torchvision', 'DEF')
  for operator in ('nms', 'qnms'):
    library.define(
      f'{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor'
    )
  import torchvision
import timm
from timm.models import (
  convnext,
  efficientnet,
  mobilenetv3,
  resnet,
  vision_transformer,
)

HERE = pathlib.Path(__file__).parent / 'fixtures'
CLASSES = 5


def groups(template, count, first=1):
  """Returns {group of the library's network: PyTorch's module}."""
  return {f'group{g + 1}': template.format(g + first) for g in range(count)}


def torchvision_vgg(norm=True):
  widths = [2, 'M', 4, 'M', 8, 8, 'M', 16, 16, 'M', 16, 16, 'M']
  features = torchvision.models.vgg.make_layers(widths, batch_norm=norm)
  model = torchvision.models.VGG(features, CLASSES, init_weights=False)
  # A narrow network for images of 64x64, with maps of 2x2 instead of 7x7.
  model.avgpool = nn.Identity()
  model.classifier[0] = nn.Linear(16 * 2 * 2, 8)
  model.classifier[3] = nn.Linear(8, 8)
  model.classifier[6] = nn.Linear(8, CLASSES)
  return model


def torchvision_mobilenet_v2():
  model = torchvision.models.MobileNetV2(CLASSES, width_mult=0.1)
  model.features[18] = torchvision.ops.Conv2dNormActivation(
    32, 16, 1, activation_layer=nn.ReLU6
  )
  model.classifier[1] = nn.Linear(16, CLASSES)
  return model


def torchvision_mobilenet_v3():
  setting, last = torchvision.models.mobilenetv3._mobilenet_v3_conf(
    'mobilenet_v3_small', width_mult=0.2
  )
  del last
  return torchvision.models.MobileNetV3(setting, 16, CLASSES)


def torchvision_efficientnet():
  setting, last = torchvision.models.efficientnet._efficientnet_conf(
    'efficientnet_b0', width_mult=0.05, depth_mult=1.0
  )
  return torchvision.models.EfficientNet(
    setting, 0.2, num_classes=CLASSES, last_channel=last
  )


def torchvision_cifar_densenet():
  model = torchvision.models.DenseNet(
    2, (6, 12, 24, 16), 4, num_classes=CLASSES
  )
  model.features.conv0 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
  for part in ('norm0', 'relu0', 'pool0'):
    delattr(model.features, part)
  return model


def torchvision_vit():
  return torchvision.models.VisionTransformer(
    32, 8, 2, 2, 16, 64, num_classes=CLASSES
  )


def timm_mobilenet_v2():
  model = efficientnet._gen_mobilenet_v2(
    'mobilenetv2_100', channel_multiplier=0.1, num_classes=CLASSES
  )
  model.conv_head = nn.Conv2d(32, 16, 1, bias=False)
  model.bn2 = timm.layers.BatchNormAct2d(16, act_layer=nn.ReLU6)
  model.classifier = nn.Linear(16, CLASSES)
  return model


def timm_mobilenet_v3():
  model = mobilenetv3._gen_mobilenet_v3(
    'mobilenetv3_small_100', channel_multiplier=0.25, num_classes=CLASSES
  )
  model.conv_head = nn.Conv2d(144, 16, 1)
  model.classifier = nn.Linear(16, CLASSES)
  return model


def timm_efficientnet():
  return efficientnet._gen_efficientnet(
    'efficientnet_b0', channel_multiplier=0.05, num_classes=CLASSES
  )


def timm_efficientnet_lite():
  model = efficientnet._gen_efficientnet_lite(
    'tf_efficientnet_lite0',
    channel_multiplier=0.05,
    pad_type='same',
    bn_eps=1e-3,
    num_classes=CLASSES,
  )
  model.conv_head = nn.Conv2d(16, 16, 1, bias=False)
  model.bn2 = timm.layers.BatchNormAct2d(16, eps=1e-3, act_layer=nn.ReLU6)
  model.classifier = nn.Linear(16, CLASSES)
  return model


def timm_convnext():
  return convnext.ConvNeXt(
    depths=(1, 1, 2, 1), dims=(4, 6, 8, 10), num_classes=CLASSES
  )


def torchvision_convnext():
  setting = [
    torchvision.models.convnext.CNBlockConfig(width, next_width, depth)
    for width, next_width, depth in ((4, 6, 1), (6, None, 2))
  ]
  return torchvision.models.ConvNeXt(setting, num_classes=CLASSES)


def timm_dinov2():
  return vision_transformer.VisionTransformer(
    35,
    7,
    embed_dim=16,
    depth=2,
    num_heads=2,
    init_values=1.0,
    reg_tokens=4,
    no_embed_class=True,
    num_classes=CLASSES,
    dynamic_img_size=True,
  )


def timm_resnet(block, layers, channels):
  return resnet.ResNet(block, layers, CLASSES, channels=channels)


# Name -> (the library's network, its arguments, size of the image, PyTorch's
# module, {feature: PyTorch's module}); '<' means the input of that module.
NARROW = {
  'timm_resnet': (
    'imagenet_resnet',
    {'depth': 18, 'stem_width': 64, 'widths': [4, 6, 8, 10]},
    32,
    lambda: timm_resnet(resnet.BasicBlock, (2, 2, 2, 2), (4, 6, 8, 10)),
    {**groups('layer{}', 4), 'group4.pre': '<layer4.1.act2'},
  ),
  'timm_bottleneck_resnet': (
    'imagenet_resnet',
    {'depth': 50, 'stem_width': 64, 'widths': [2, 3, 4, 5]},
    32,
    lambda: timm_resnet(resnet.Bottleneck, (3, 4, 6, 3), (2, 3, 4, 5)),
    {**groups('layer{}', 4), 'group1.block1.pre': '<layer1.0.act3'},
  ),
  'torchvision_vgg': (
    'imagenet_vgg',
    {'depth': 11, 'width': 1 / 32, 'widths': [2, 4, 8, 8, 16, 16, 16, 16]}
    | {'hidden_width': 8},
    64,
    torchvision_vgg,
    {'group5.pre': 'features.26', 'hidden2.pre': 'classifier.3'},
  ),
  'torchvision_plain_vgg': (
    'imagenet_vgg',
    {'depth': 11, 'norm': False, 'widths': [2, 4, 8, 8, 16, 16, 16, 16]}
    | {'hidden_width': 8},
    64,
    lambda: torchvision_vgg(norm=False),
    {'group5.pre': 'features.18', 'hidden2.pre': 'classifier.3'},
  ),
  'torchvision_mobilenet_v2': (
    'mobilenet_v2',
    {'width': 0.1, 'last_width': 16},
    32,
    torchvision_mobilenet_v2,
    {
      'group1': 'features.1',
      'group3': 'features.6',
      'group7': 'features.17',
      'last': 'features.18',
    },
  ),
  'timm_mobilenet_v2': (
    'mobilenet_v2',
    {'width': 0.1, 'last_width': 16},
    32,
    timm_mobilenet_v2,
    {**groups('blocks.{}', 7, 0), 'last': 'bn2'},
  ),
  'torchvision_mobilenet_v3': (
    'mobilenet_v3_small',
    {'width': 0.2, 'hidden_width': 16},
    32,
    torchvision_mobilenet_v3,
    {
      'group1': 'features.1',
      'group2': 'features.3',
      'group3': 'features.8',
      'group4': 'features.11',
      'hidden': 'classifier.1',
    },
  ),
  'timm_mobilenet_v3': (
    'mobilenet_v3_small',
    {'width': 0.25, 'stem_width': 16, 'hidden_width': 16, 'epsilon': 1e-5}
    | {'inner_widths': [16, 40, 32, 32, 96, 96, 48, 48, 96, 144, 144]},
    32,
    timm_mobilenet_v3,
    {'group2': 'blocks.1', 'group4': 'blocks.4'},
  ),
  'torchvision_efficientnet': (
    'efficientnet_b0',
    {'width': 0.05, 'epsilon': 1e-5},
    32,
    torchvision_efficientnet,
    groups('features.{}', 7),
  ),
  'timm_efficientnet': (
    'efficientnet_b0',
    {'width': 0.05, 'epsilon': 1e-5},
    32,
    timm_efficientnet,
    groups('blocks.{}', 7, 0),
  ),
  'torchvision_shufflenet_v2': (
    'shufflenet_v2',
    {'stem_width': 8, 'widths': [8, 12, 16], 'last_width': 8},
    32,
    lambda: torchvision.models.ShuffleNetV2(
      [4, 8, 4], [8, 8, 12, 16, 8], CLASSES
    ),
    groups('stage{}', 3, 2),
  ),
  'torchvision_densenet': (
    'densenet121',
    {'growth': 2},
    32,
    lambda: torchvision.models.DenseNet(
      2, (6, 12, 24, 16), 4, num_classes=CLASSES
    ),
    {
      **groups('features.denseblock{}', 4),
      'group2.pre': 'features.transition2.norm',
      'group4.pre': 'features.norm5',
    },
  ),
  'torchvision_cifar_densenet': (
    'cifar_densenet121',
    {'growth': 2},
    16,
    torchvision_cifar_densenet,
    {'stem': 'features.conv0', **groups('features.denseblock{}', 4)},
  ),
  'torchvision_vit': (
    'vit',
    {'width': 16, 'depth': 2, 'heads': 2, 'patch': 8},
    32,
    torchvision_vit,
    {'group1': 'encoder.layers.encoder_layer_1'},
  ),
  'timm_vit': (
    'vit',
    {'width': 16, 'depth': 2, 'heads': 2, 'patch': 8},
    32,
    lambda: vision_transformer.VisionTransformer(
      32, 8, embed_dim=16, depth=2, num_heads=2, num_classes=CLASSES
    ),
    {'group1.block1': 'blocks.0', 'group1': 'blocks.1'},
  ),
  'timm_dinov2': (
    'vit',
    {'width': 16, 'depth': 2, 'heads': 2, 'patch': 7, 'image_size': 35}
    | {'layer_scale': 1.0, 'registers': 4, 'positions': 'patches'},
    21,
    timm_dinov2,
    {'group1.block1': 'blocks.0', 'group1': 'blocks.1'},
  ),
  'timm_convnext': (
    'convnext',
    {'blocks': [1, 1, 2, 1], 'widths': [4, 6, 8, 10]},
    33,
    timm_convnext,
    groups('stages.{}', 4, 0),
  ),
  'torchvision_convnext': (
    'convnext',
    {'blocks': [1, 2], 'widths': [4, 6]},
    16,
    torchvision_convnext,
    {f'group{g + 1}': f'features.{2 * g + 1}' for g in range(2)},
  ),
  'timm_efficientnet_lite': (
    'efficientnet_lite',
    {'width': 0.05, 'last_width': 16},
    48,
    timm_efficientnet_lite,
    groups('blocks.{}', 7, 0),
  ),
  'repdistiller_resnet': (
    'cifar_resnet',
    {'depth': 14, 'stem_width': 4, 'widths': [4, 6, 8]},
    16,
    lambda: rep_distiller.ResNet(14, 4, (4, 6, 8), CLASSES),
    {'group3.pre': 'layer3.1.sum', **groups('layer{}', 3)},
  ),
  'repdistiller_padded_resnet': (
    'cifar_resnet',
    {'depth': 14, 'stem_width': 4, 'widths': [4, 6, 8], 'shortcut': 'A'},
    15,
    lambda: rep_distiller.ResNet(
      14, 4, (4, 6, 8), CLASSES, rep_distiller.PaddedBlock
    ),
    {'group2.block1.pre': 'layer2.0.sum', **groups('layer{}', 3)},
  ),
  'repdistiller_bottleneck_resnet': (
    'imagenet_resnet',
    {'depth': 50, 'stem': 'cifar', 'stem_width': 4, 'widths': [2, 3, 4, 5]},
    16,
    lambda: rep_distiller.BottleneckResNet(4, (2, 3, 4, 5), CLASSES),
    {'group4.pre': 'layer4.2.sum', **groups('layer{}', 4)},
  ),
  'repdistiller_wrn': (
    'wide_resnet',
    {'depth': 16, 'width': 2, 'base_width': 2},
    16,
    lambda: rep_distiller.WideResNet(16, 2, 2, CLASSES),
    {
      **groups('block{}', 3),
      'group1.pre': 'block2.layer.0.bn1',
      'group3.pre': 'bn1',
    },
  ),
  'repdistiller_vgg': (
    'cifar_vgg',
    {'depth': 11, 'widths': [2, 4, 8, 8, 16, 16, 16, 16]},
    16,
    lambda: rep_distiller.VGG([[2], [4], [8, 8], [16, 16], [16, 16]], CLASSES),
    {f'group{g + 1}.pre': f'block{g}' for g in range(5)},
  ),
  'repdistiller_slim_vgg': (
    'cifar_vgg',
    {'depth': 11, 'widths': [2, 4, 8, 8, 16, 16, 16, 16], 'pools': [True] * 4}
    | {'use_bias': False},
    32,
    lambda: rep_distiller.VGG(
      [[2], [4], [8, 8], [16, 16], [16, 16]], CLASSES, slim=True
    ),
    {f'group{g + 1}.pre': f'block{g}' for g in range(1, 5)},
  ),
  'repdistiller_mobilenet_v2': (
    'cifar_mobilenet_v2',
    {'width': 0.1, 'last_width': 16},
    16,
    lambda: rep_distiller.MobileNetV2(0.1, 16, CLASSES),
    {**groups('blocks.{}', 7, 0), 'last': 'conv2'},
  ),
  'repdistiller_shufflenet_v1': (
    'cifar_shufflenet_v1',
    {'stem_width': 12, 'widths': [24, 48, 96]},
    16,
    lambda: rep_distiller.ShuffleNetV1(12, (24, 48, 96), CLASSES),
    {'group3.pre': 'layer3.3.sum', **groups('layer{}', 3)},
  ),
  'repdistiller_shufflenet_v2': (
    'cifar_shufflenet_v2',
    {'stem_width': 4, 'widths': [8, 12, 16], 'last_width': 8},
    16,
    lambda: rep_distiller.ShuffleNetV2(4, (8, 12, 16), 8, CLASSES),
    groups('layer{}', 3),
  ),
  'plain_mobilenet_v1': (
    'mobilenet_v1',
    {'width': 1 / 16},
    32,
    lambda: plain_modules.mobilenet_v1(1 / 16, CLASSES),
    groups('group{}', 5),
  ),
  'plain_preactivation_resnet': (
    'preactivation_resnet',
    {'depth': 20, 'stem_width': 4, 'widths': [2, 3, 4]},
    15,
    lambda: plain_modules.preactivation_resnet(20, 4, (2, 3, 4), CLASSES),
    {
      **groups('group{}', 3),
      'group1.pre': 'group2.block1.norm1',
      'group3.pre': 'pool.norm',
    },
  ),
  'plain_pyramidnet': (
    'pyramidnet',
    {'depth': 20, 'widening': 7, 'stem_width': 4},
    15,
    lambda: plain_modules.pyramidnet(20, 7, 4, True, CLASSES),
    {
      **groups('group{}', 3),
      'group1.pre': 'group2.block1.norm1',
      'group3.pre': 'pool.norm',
    },
  ),
  'plain_basic_pyramidnet': (
    'pyramidnet',
    {'depth': 14, 'widening': 7, 'stem_width': 4, 'bottleneck': False},
    15,
    lambda: plain_modules.pyramidnet(14, 7, 4, False, CLASSES),
    groups('group{}', 3),
  ),
  'plain_densenet': (
    'cifar_densenet',
    {'depth': 10, 'growth': 3},
    16,
    lambda: plain_modules.densenet(10, 3, CLASSES),
    {**groups('group{}', 3), 'group2.pre': 'transition2.norm'},
  ),
}


def whole(ours, name, builder, features, **arguments):
  return ours, arguments, 224, lambda: builder(name), features


def from_torchvision(name):
  return torchvision.models.get_model(name)


def from_timm(name):
  return timm.create_model(name)


WHOLE = {
  'torchvision_resnet18': whole(
    'resnet18', 'resnet18', from_torchvision, groups('layer{}', 4)
  ),
  'torchvision_resnet50': whole(
    'resnet50', 'resnet50', from_torchvision, groups('layer{}', 4)
  ),
  'timm_resnet34': whole(
    'resnet34', 'resnet34', from_timm, groups('layer{}', 4)
  ),
  'torchvision_vgg11': whole(
    'imagenet_vgg', 'vgg11', from_torchvision, {}, depth=11, norm=False
  ),
  'timm_vgg11_bn': whole('imagenet_vgg', 'vgg11_bn', from_timm, {}, depth=11),
  'torchvision_mobilenet_v2': whole(
    'mobilenet_v2', 'mobilenet_v2', from_torchvision, {'group7': 'features.17'}
  ),
  'timm_mobilenet_v2': whole(
    'mobilenet_v2', 'mobilenetv2_100', from_timm, groups('blocks.{}', 7, 0)
  ),
  'torchvision_mobilenet_v3': whole(
    'mobilenet_v3_small',
    'mobilenet_v3_small',
    from_torchvision,
    {'group4': 'features.11'},
  ),
  'timm_mobilenet_v3': whole(
    'mobilenet_v3_small',
    'mobilenetv3_small_100',
    from_timm,
    {'group4': 'blocks.4'},
    epsilon=1e-5,
  ),
  'torchvision_efficientnet_b0': whole(
    'efficientnet_b0',
    'efficientnet_b0',
    from_torchvision,
    groups('features.{}', 7),
    epsilon=1e-5,
  ),
  'timm_efficientnet_b0': whole(
    'efficientnet_b0',
    'efficientnet_b0',
    from_timm,
    groups('blocks.{}', 7, 0),
    epsilon=1e-5,
  ),
  'torchvision_shufflenet_v2': whole(
    'shufflenet_v2',
    'shufflenet_v2_x1_0',
    from_torchvision,
    groups('stage{}', 3, 2),
  ),
  'torchvision_densenet121': whole(
    'densenet121',
    'densenet121',
    from_torchvision,
    groups('features.denseblock{}', 4),
  ),
  'timm_densenet121': whole(
    'densenet121', 'densenet121', from_timm, groups('features.denseblock{}', 4)
  ),
  'torchvision_vit_b16': whole(
    'vit_b16',
    'vit_b_16',
    from_torchvision,
    {'group1': 'encoder.layers.encoder_layer_11'},
  ),
  'timm_deit_tiny': whole(
    'deit_tiny', 'deit_tiny_patch16_224', from_timm, {'group1': 'blocks.11'}
  ),
}


@torch.no_grad()
def randomize(model):
  """Draws weights, exact in half precision, so that every layer has effect."""
  for name, tensor in model.state_dict().items():
    if name.endswith('running_var'):
      tensor.uniform_(0.5, 1.5)
    elif name.endswith(('running_mean', 'bias')):
      tensor.normal_(0, 0.1)
    elif tensor.ndim == 1 and tensor.is_floating_point():
      tensor.uniform_(0.5, 1.5)
    elif not tensor.any() and tensor.is_floating_point():
      tensor.normal_(0, 0.1)
    if tensor.is_floating_point():
      tensor.copy_(tensor.half())


def last_first(tensor):
  """Moves the channels last, as in the library's maps."""
  if tensor.ndim == 4:
    tensor = tensor.permute(0, 2, 3, 1)
  return tensor.detach().clone().contiguous()


@torch.no_grad()
def answers(model, image, features):
  found = {}
  for feature, path in features.items():
    module = model.get_submodule(path.removeprefix('<'))
    if path.startswith('<'):
      module.register_forward_pre_hook(
        lambda _, inputs, feature=feature: found.__setitem__(
          feature, last_first(inputs[0])
        )
      )
    else:
      module.register_forward_hook(
        lambda _, inputs, output, feature=feature: found.__setitem__(
          feature, last_first(output)
        )
      )
  found['head'] = last_first(model.eval()(image))
  return found


def write(folder, name, case, half):
  ours, arguments, size, build, features = case
  torch.manual_seed(0)
  model = build()
  randomize(model)
  image = torch.randn(1, 3, size, size)
  weights = {
    key: tensor.half() if half and tensor.is_floating_point() else tensor
    for key, tensor in model.state_dict().items()
    if not key.endswith('num_batches_tracked')
  }
  folder.mkdir(parents=True, exist_ok=True)
  weights = {key: tensor.contiguous() for key, tensor in weights.items()}
  save_file(weights, folder / f'{name}.safetensors')
  expected = {'image': last_first(image), **answers(model, image, features)}
  spec = {'network': ours, 'arguments': json.dumps(arguments)}
  if half:
    spec['arguments'] = json.dumps({**arguments, 'num_classes': CLASSES})
  save_file(expected, folder / f'{name}.expected.safetensors', metadata=spec)
  print(name, f'{sum(t.numel() for t in weights.values()):,}')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--whole', help='folder for the real architectures')
  parser.add_argument('--only', nargs='*', help='names of networks')
  options = parser.parse_args()
  folder = pathlib.Path(options.whole) if options.whole else HERE
  cases = WHOLE if options.whole else NARROW
  for name in options.only or cases:
    write(folder, name, cases[name], half=not options.whole)


if __name__ == '__main__':
  main()
