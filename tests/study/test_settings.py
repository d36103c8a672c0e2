"""The keys of a whole config."""

import ml_collections
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.study import config as config_lib
from jaxdistill.study import settings

CONFIG = {
  'data': {'name': 'digits'},
  'student': {'name': 'resnet8'},
  'method': {'name': 'supervised'},
}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'epoch': 3}, r"unknown key 'epoch'; did you mean 'epochs'"),
    ({'few': 3}, r"unknown key 'few'"),
    ({'seeds': 1.5}, r'seeds: expected a whole number or a sequence, got 1\.5'),
    ({'epochs': {'x': 1}}, 'epochs: expected a number, got {'),
    ({'data': 'digits'}, r"data: expected a section .*, got 'digits'"),
    ({'methods': {}}, "either 'method' or 'methods'"),
    ({'method': None}, "either 'method' or 'methods'"),
    ({'batch_size': True}, 'batch_size: expected a whole number, got True'),
  ],
)
def test_a_wrong_key_of_a_config_is_refused(changes, message):
  with pytest.raises(UsageError, match=message):
    settings.check({**CONFIG, **changes})


def test_a_valid_config_has_all_defaults():
  checked = settings.check({**CONFIG, 'epochs': 3})
  assert checked.epochs == 3
  assert checked.batch_size == 64
  assert checked.teacher is None


def test_a_config_must_be_keys_and_values():
  with pytest.raises(UsageError, match=r'config: expected keys and values'):
    config_lib.plain([])


def test_a_plain_config_is_made_of_dicts():
  config = ml_collections.ConfigDict({'a': {'b': {'c': (1, 2)}}, 'd': None})
  plain = config_lib.plain(config)
  assert plain == {'a': {'b': {'c': (1, 2)}}, 'd': None}
  assert type(plain['a']['b']) is dict


@pytest.mark.parametrize(
  ('seeds', 'chosen'), [(2, (0, 1)), ((5, 3), (5, 3)), ([7], (7,))]
)
def test_seeds_are_a_count_or_a_sequence(seeds, chosen):
  assert settings.check_seeds('seeds', seeds) == chosen


def test_sections_in_lists_become_plain_dicts_too():
  optimizers = [ml_collections.ConfigDict({'name': 'sgd'}), {'name': 'adamw'}]
  config = ml_collections.ConfigDict({'method': {'optimizers': optimizers}})
  method = config_lib.plain(config)['method']
  assert method == {'optimizers': [{'name': 'sgd'}, {'name': 'adamw'}]}
  assert type(method['optimizers'][0]) is dict
