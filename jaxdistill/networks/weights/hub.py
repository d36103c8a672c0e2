"""Folders of models, on this machine or on the Hugging Face Hub."""

import os
import pathlib

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

PREFIX = 'hf:'
# The only files that are read, and so the only ones that are downloaded. None
# of them is code.
FILES = (
  'README.md',
  'config.json',
  'model.safetensors',
  'preprocessor_config.json',
)
# Exception of huggingface_hub -> what it means. Its base class comes last.
_REASONS = {
  'HFValidationError': "expected 'hf:OWNER/NAME' or 'hf:OWNER/NAME@REVISION'",
  'LocalTokenNotFoundError': 'nobody is logged in: use `hf auth login`',
  'GatedRepoError': 'access is restricted: accept its conditions on '
  'huggingface.co, then log in with `hf auth login`',
  'RevisionNotFoundError': 'it has no such revision',
  'RepositoryNotFoundError': 'there is no such model, or it is private: log in '
  'with `hf auth login`',
  'OfflineModeIsEnabled': 'it is not in the cache, and HF_HUB_OFFLINE forbids '
  'the download; name a folder with its files instead',
  'LocalEntryNotFoundError': 'it is not in the cache, and there is no '
  'connection to huggingface.co; name a folder with its files instead',
}


def folder(reference: str | os.PathLike) -> pathlib.Path:
  """Returns the folder that holds the files of a model.

  Args:
    reference: the folder, 'hf:OWNER/NAME', or 'hf:OWNER/NAME@REVISION', whose
      files are downloaded to the cache of huggingface_hub if they are not there
      yet.

  Raises:
    UsageError: huggingface_hub is not installed, the name does not exist, it is
      restricted, or there is no connection.
  """
  text = os.fspath(reference)
  if not text.startswith(PREFIX):
    return pathlib.Path(text).expanduser()
  hub = optional.require('huggingface_hub', f'{text!r}')
  name, _, revision = text.removeprefix(PREFIX).partition('@')
  try:
    path = hub.snapshot_download(
      name, revision=revision or None, allow_patterns=list(FILES)
    )
  except Exception as error:
    raise UsageError(f'{text}: {reason(error)}') from None
  return pathlib.Path(path)


def reason(error: Exception) -> str:
  """Says in one line why the hub could not be used.

  Args:
    error: what huggingface_hub raised.
  """
  kinds = {kind.__name__ for kind in type(error).__mro__}
  for kind, words in _REASONS.items():
    if kind in kinds:
      return words
  line = ' '.join(str(error).split())[:200]
  return f'the hub cannot be used ({type(error).__name__}: {line})'


def about(path: pathlib.Path) -> str:
  """Says which licence and which revision a folder of a model has.

  Args:
    path: the folder. The licence, and whether the access is restricted, are
      read from the model card README.md; the revision is the name of the folder
      in the cache of huggingface_hub.
  """
  card = _card(path / 'README.md')
  licence = card.get('license_name') or card.get('license')
  words = [
    f'licence {licence}' if licence else 'its model card names no licence'
  ]
  if any(key.startswith('extra_gated') for key in card):
    words.append('access is restricted')
  if path.parent.name == 'snapshots':
    words.insert(0, f'revision {path.name}')
  return ', '.join(words)


def _card(path: pathlib.Path) -> dict[str, str]:
  """Returns the plain fields at the head of a model card."""
  try:
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    return {}
  fields: dict[str, str] = {}
  if not lines or lines[0].strip() != '---':
    return fields
  for line in lines[1:]:
    if line.strip() == '---':
      break
    key, separator, value = line.partition(':')
    if separator and key.strip() == key:
      fields[key] = value.strip().strip('\'"')
  return fields
