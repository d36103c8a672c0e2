"""Dropout and stochastic depth of students while masks and groups learn."""

import functools

from flax import linen as nn
import jax
import pytest

from jaxdistill.core.types import Network, Stage
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import layers
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import pyramidnet


class Dropped(nn.Module):
  """A convolution with dropout, as users write it."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(3, (3, 3))(x)
    return nn.Dropout(0.5)(x, deterministic=not train)


@pytest.mark.parametrize(
  'module',
  [
    inverted_residual.InvertedResidual(3, 3, expand=False, drop_path=0.5),
    pyramidnet.PyramidBlock(3, shake_drop=0.5, bottleneck=False),
    Dropped(),
  ],
  ids=['drop path', 'shake drop', 'dropout'],
)
@pytest.mark.parametrize('alpha', [3e-3, 'auto'])
def test_students_draw_nothing_in_the_first_phases_unless_asked(
  module, alpha, recipe, model, start, batch
):
  """They draw if `stochastic` is given, and normalise by the batch anyway."""
  network = Network(
    (
      Stage('group1.conv1', layers.ConvUnit(3)),
      Stage('group1.block', module),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  carry = {'student': model(network, 0, recipe)}
  carry['teacher'] = carry['student']
  for stochastic in (False, True):
    method = masked_layer(
      recipe, masks=Masks(alpha=alpha), stochastic=stochastic
    )
    models = start(method, carry)
    for make in method[1:4]:
      phase = make(models)
      program = jax.make_jaxpr(functools.partial(phase.step, static=None))(
        *phase.init(jax.random.key(0), models),
        dict.fromkeys(phase.streams, batch),
        jax.random.key(0),
      )
      draws = 'random_bits' in str(program)
      assert draws == stochastic, (phase.name, stochastic)
