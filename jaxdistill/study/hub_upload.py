"""Uploads exported files with their model cards to the Hugging Face Hub."""

from collections.abc import Sequence
import pathlib
import re
import sys
from typing import Any

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError
from jaxdistill.networks.weights import hub
from jaxdistill.study.plans import Plan

_NAME = re.compile(r'[\w.-]+/[\w.-]+')
_PURPOSE = 'push_to_hub'
_HEAD = '---\nlibrary_name: jaxdistill\ntags:\n- knowledge-distillation\n---\n'


def check(name: str) -> None:
  """Checks that an upload is possible, before anything is written.

  Args:
    name: 'OWNER/NAME' of the model.

  Raises:
    UsageError: it is not such a name, or huggingface_hub is not installed.
  """
  if not _NAME.fullmatch(name):
    raise UsageError(f"push_to_hub: expected 'OWNER/NAME', got {name!r}")
  optional.require('huggingface_hub', _PURPOSE)


def push(plan: Plan, files: Sequence[pathlib.Path], name: str) -> str:
  """Uploads exported files, their descriptions and their cards in one commit.

  All cards are joined into README.md, the model card of the repository. If the
  repository does not exist, it is created. What is known about licences is
  printed.

  Args:
    plan: what was run.
    files: the exported files.
    name: 'OWNER/NAME' of the model.

  Returns:
    The address of the model.

  Raises:
    UsageError: there is no connection, nobody is logged in, or the account may
      not write to the repository.
  """
  module = optional.require('huggingface_hub', _PURPOSE)
  for line in licences(plan):
    print(line, file=sys.stderr)
  contents: dict[str, Any] = {}
  cards = []
  for path in files:
    contents[path.name] = path
    contents[f'{path.name}.json'] = path.with_name(f'{path.name}.json')
    cards.append(path.with_name(f'{path.name}.md').read_text())
  contents['README.md'] = (_HEAD + '\n'.join(cards)).encode()
  operations = [
    module.CommitOperationAdd(path_in_repo=key, path_or_fileobj=content)
    for key, content in contents.items()
  ]
  api = module.HfApi()
  try:
    api.create_repo(name, repo_type='model', exist_ok=True)
    api.create_commit(
      name,
      operations,
      commit_message='Students distilled with jaxdistill',
    )
  except Exception as error:  # of huggingface_hub or of what it connects with
    raise UsageError(f'push_to_hub: {name}: {hub.reason(error)}') from None
  return f'https://huggingface.co/{name}'


def licences(plan: Plan) -> list[str]:
  """Returns lines with what is known about the licence of a student.

  Args:
    plan: what was run.
  """
  known = [note for note in plan.notes if 'licence' in note]
  return [
    *known,
    'licence: the files are yours to license as far as the licences of the '
    'teacher and of the data allow; name your licence on the page of the model',
  ]
