"""Uploads to the Hugging Face Hub, with a module that stands in for it."""

import sys
import types

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.study import hub_upload


class Plan:
  notes = ('teacher.weights: dino: revision abc, licence apache-2.0', 'other')


class Hub(types.ModuleType):
  """Keeps what was uploaded, or raises an error."""

  def __init__(self, error=None):
    super().__init__('huggingface_hub')
    self.commits, self.repositories, self.error = [], [], error
    self.HfApi = lambda: self
    self.CommitOperationAdd = lambda **keys: keys

  def create_repo(self, name, *, repo_type, exist_ok):
    assert repo_type == 'model' and exist_ok
    if self.error is not None:
      raise self.error
    self.repositories.append(name)

  def create_commit(self, name, operations, *, commit_message):
    assert commit_message
    self.commits.append((name, operations))


@pytest.fixture
def files(tmp_path):
  paths = [tmp_path / 'kd-0-last.onnx', tmp_path / 'kd-0-best.onnx']
  for path in paths:
    path.write_bytes(b'program')
    path.with_name(f'{path.name}.json').write_text('{}')
    path.with_name(f'{path.name}.md').write_text(f'# {path.name}\n')
  return paths


def test_files_and_cards_are_uploaded_in_one_commit(files, monkeypatch, capsys):
  module = Hub()
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  address = hub_upload.push(Plan, files, 'me/student')
  assert address == 'https://huggingface.co/me/student'
  assert module.repositories == ['me/student']
  ((name, operations),) = module.commits
  contents = {o['path_in_repo']: o['path_or_fileobj'] for o in operations}
  assert name == 'me/student'
  assert set(contents) == {
    *(path.name for path in files),
    *(f'{path.name}.json' for path in files),
    'README.md',
  }
  assert contents[files[0].name] == files[0]
  card = contents['README.md'].decode()
  assert card.startswith('---\nlibrary_name: jaxdistill\n')
  assert '# kd-0-last.onnx' in card and '# kd-0-best.onnx' in card
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == Plan.notes[0] and 'yours to license' in lines[1]


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('LocalTokenNotFoundError', 'hf auth login'),
    ('RepositoryNotFoundError', 'there is no such model'),
    ('Strange', r'the hub cannot be used \(Strange: two lines\)'),
  ],
)
def test_a_refusal_of_the_hub_is_one_line(kind, words, files, monkeypatch):
  error = type(kind, (Exception,), {})('two\nlines')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', Hub(error))
  with pytest.raises(UsageError, match=f'push_to_hub: me/x: .*{words}') as e:
    hub_upload.push(Plan, files, 'me/x')
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('name', ['student', 'a/b/c', 'me/', 'hf:me/x y'])
def test_a_name_that_is_no_model_is_refused_before_anything(name):
  with pytest.raises(UsageError, match="expected 'OWNER/NAME'"):
    hub_upload.check(name)


def test_a_missing_package_is_refused_before_anything(
  monkeypatch, cli, config, copied
):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  code, _, err = cli.call(
    'export', copied, f'--config={config}', '--push_to_hub=me/x'
  )
  assert code == 2 and 'push_to_hub needs huggingface_hub' in err
  assert not (copied / 'export').exists()
