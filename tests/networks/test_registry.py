"""Networks are made by name."""

import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import registry


def test_create_makes_the_network_of_the_name_with_its_arguments():
  network = jd.networks.create('resnet8', num_classes=7, widths=(4, 5, 6))
  assert network == registry.NETWORKS['resnet8'](
    num_classes=7, widths=(4, 5, 6)
  )
  assert network != jd.networks.create('resnet8', num_classes=7)


@pytest.mark.parametrize('name', jd.networks.names())
def test_every_name_makes_a_network_for_any_number_of_classes(name):
  network = jd.networks.create(name, num_classes=7)
  assert network.stages[-1].module.num_classes == 7


@pytest.mark.parametrize(
  ('name', 'arguments', 'message'),
  [
    ('resnt8', {}, r"unknown network 'resnt8'; did you mean 'resnet8'\?"),
    (
      'resnet8',
      {'widhts': (2, 2, 2)},
      r"unknown argument of resnet8 'widhts'; did you mean 'widths'\?",
    ),
    # The name already says the depth.
    ('resnet8', {'depth': 14}, "unknown argument of resnet8 'depth'"),
    ('cifar_resnet', {'depth': 9}, 'depth: expected one of 8, 14, 20'),
    ('narrowed', {'multiplier': 0.5}, "unknown network 'narrowed'"),
  ],
)
def test_a_wrong_name_or_argument_is_named_in_one_line(
  name, arguments, message
):
  with pytest.raises(UsageError, match=message) as error:
    jd.networks.create(name, num_classes=3, **arguments)
  assert '\n' not in str(error.value)


def test_every_public_name_of_networks_exists():
  for name in jd.networks.__all__:
    assert getattr(jd.networks, name) is not None
  assert callable(jd.networks.summary)
