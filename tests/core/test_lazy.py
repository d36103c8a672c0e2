"""Names that a package imports when they are first used."""

import importlib
import sys

import pytest


@pytest.fixture
def shop(tmp_path, monkeypatch):
  folder = tmp_path / 'lazy_shop'
  folder.mkdir()
  (folder / 'fruit.py').write_text('apple = object()\n')
  (folder / 'till.py').write_text('')
  (folder / '__init__.py').write_text(
    'from jaxdistill.core import lazy\n'
    "__all__ = ['apple', 'till']\n"
    '__getattr__, __dir__ = lazy.attributes(\n'
    "  __name__, __all__, {'apple': 'lazy_shop.fruit'}, modules=('till',))\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  yield importlib.import_module('lazy_shop')
  for name in [name for name in sys.modules if name.startswith('lazy_shop')]:
    del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(shop):
  assert 'lazy_shop.fruit' not in sys.modules
  apple = shop.apple
  assert apple is sys.modules['lazy_shop.fruit'].apple
  assert vars(shop)['apple'] is apple


def test_a_module_of_the_package_is_imported_when_it_is_first_used(shop):
  assert 'lazy_shop.till' not in sys.modules
  assert shop.till is sys.modules['lazy_shop.till']


def test_names_that_are_not_imported_yet_are_listed(shop):
  assert {'apple', 'till', '__all__'} <= set(dir(shop))
  assert 'lazy_shop.fruit' not in sys.modules


def test_a_name_that_does_not_exist_is_refused_like_by_any_module(shop):
  message = "module 'lazy_shop' has no attribute 'pear'"
  with pytest.raises(AttributeError, match=message):
    shop.pear  # noqa: B018


def test_star_imports_give_the_public_names(shop):
  namespace = {}
  exec('from lazy_shop import *', namespace)
  assert namespace['apple'] is shop.apple
