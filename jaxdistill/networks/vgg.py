"""VGG with batch norm for small images.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, 2014, https://arxiv.org/abs/1409.1556; the layout of
https://github.com/HobbitLong/RepDistiller.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdistill.networks import layers, staged
from jaxdistill.types import Array, Network, Stage

CONVOLUTIONS = {
  8: (1, 1, 1, 1, 1),
  11: (1, 1, 2, 2, 2),
  13: (2, 2, 2, 2, 2),
  16: (2, 2, 3, 3, 3),
  19: (2, 2, 4, 4, 4),
}


class ConvUnit(nn.Module):
  """[2x2 max-pooling,] 3x3 convolution, batch norm, ReLU."""

  width: int
  pool: bool = False
  use_bias: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    if self.pool:
      x = layers.max_pool(x)
    x = layers.conv(
      self.width, use_bias=self.use_bias, dtype=self.dtype, name='conv'
    )(x)
    x = layers.batch_norm(train, dtype=self.dtype, name='norm')(x)
    return {'': nn.relu(x), '.pre': x}


def cifar_vgg(
  depth: int = 13,
  *,
  num_classes: int = 10,
  width: float = 1.0,
  pools: Sequence[bool] = (True, True, True, False),
  use_bias: bool = True,
  widths: Sequence[int] | None = None,
  dtype: str = 'float32',
) -> Network:
  """VGG with batch norm, global average pooling and one linear layer.

  Args:
    depth: 8, 11, 13, 16 or 19.
    num_classes: size of the answer.
    width: factor on the channels 64, 128, 256, 512, 512.
    pools: whether a 2x2 max-pooling stands before groups 2 to 5.
    use_bias: of the convolutions.
    widths: channels of each convolution, for pruned networks; None: the
      group's.
    dtype: of the computation; parameters stay in float32.

  Returns:
    Stages 'group{g}.conv{c}', 'pool', 'head', counted from 1; a group's
    feature is its map before pooling, and each stage gives out '.pre', the
    value before its ReLU.
  """
  if depth not in CONVOLUTIONS:
    raise staged.unknown('depth of a VGG', depth, map(str, CONVOLUTIONS))
  places = [
    (g, c) for g, count in enumerate(CONVOLUTIONS[depth]) for c in range(count)
  ]
  if widths is None:
    base = (64, 128, 256, 512, 512)
    widths = [max(1, int(base[g] * width)) for g, _ in places]
  elif len(widths) != len(places):
    raise staged.UsageError(
      f'widths has {len(widths)} entries; the network has {len(places)} '
      'convolutions'
    )
  stages = [
    Stage(
      f'group{g + 1}.conv{c + 1}',
      ConvUnit(w, bool(g and c == 0 and pools[g - 1]), use_bias, dtype),
    )
    for (g, c), w in zip(places, widths)
  ]
  stages.append(Stage('pool', layers.Pool()))
  stages.append(Stage('head', layers.Classifier(num_classes)))
  return Network(tuple(stages))
