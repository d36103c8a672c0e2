"""Model cards: what to know about an exported file before using it."""

from collections.abc import Iterator, Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from jaxdistill.study import reading, report, verdicts
from jaxdistill.study.formats import table
from jaxdistill.study.page import facts as facts_lib

_WEIGHTS = {
  'last': 'those after the last epoch',
  'best': 'those of the epoch that was best on the validation split',
}
_INT8 = {
  'weights': 'the weights are integers of 8 bits',
  'full': 'the weights and the features are integers of 8 bits',
}
_IMPORT = 'import jaxdistill as jd'
# More class names than this are in the description, not on the card.
_MOST_CLASSES = 20


def text(
  name: str, description: Mapping[str, Any], results: Mapping[str, Any]
) -> str:
  """Returns the model card of an exported file, as Markdown.

  Args:
    name: the name of the file.
    description: what describes the file; see `exports.export`.
    results: the results of the work directory; see `results.collect`.
  """
  lines = [
    f'# {name}',
    '',
    f'An image model, distilled with jaxdistill. `{name}.json` describes the '
    'file in a form that programs read.',
    '',
    *_model(description, _row(description, results)),
    *_data(description),
    *_quality(description, results),
    *_use(name, description),
  ]
  return '\n'.join(lines) + '\n'


def _row(
  description: Mapping[str, Any], results: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns the row of the results that the file belongs to."""
  rows = {row['label']: row for row in results['rows']}
  return rows[description['row']]


def _model(
  description: Mapping[str, Any], row: Mapping[str, Any]
) -> Iterator[str]:
  settings = facts_lib.settings(_without_folders(row['config']))
  seed = row['seeds'][str(description['seed'])]
  yield '## Model'
  yield ''
  yield f'- Row of the study: {row["label"]}, seed {description["seed"]}'
  yield f'- Weights: {_WEIGHTS[description["model"]]}'
  for key in ('student', 'teacher', 'method', 'data'):
    if key in settings:
      yield f'- {key.capitalize()}: `{settings[key]}`'
  yield f'- Parameters: {seed["parameters"]:,}'
  yield f'- Size of the file: {description["bytes"]:,} bytes'
  if description['int8']:
    yield f'- Numbers: {_INT8[description["int8"]]}'
  yield ''


def _without_folders(value: Any) -> Any:
  """Returns a section in which files of this computer have only their names."""
  if isinstance(value, Mapping):
    return {key: _without_folders(entry) for key, entry in value.items()}
  is_path = isinstance(value, str) and os.path.isabs(value)
  return pathlib.PurePath(value).name if is_path else value


def _data(description: Mapping[str, Any]) -> Iterator[str]:
  names = description['label_names']
  yield '## Input and output'
  yield ''
  if 'input' in description:
    yield f'- Input: {description["input"]}; the file standardises them'
    yield f'- Output: {description["output"]}'
  else:
    shape = ', '.join(map(str, description['image_shape']))
    yield (
      f'- Input: raw images, uint8 [B, {shape}], which `jd.predictor` '
      'standardises with the mean and std below'
    )
  colours = {1: 'grey', 3: 'RGB'}.get(description['image_shape'][-1])
  if colours:
    yield (
      f'- Image files: turned upright, as {colours} from 0 to 255; '
      f'{reading.FITTINGS[description["fitting"]]}; bilinear with antialiasing'
    )
  yield f'- Mean of each channel: {_numbers(description["mean"])}'
  yield f'- Standard deviation: {_numbers(description["std"])}'
  if names:
    shown = ', '.join(names[:_MOST_CLASSES])
    more = '' if len(names) <= _MOST_CLASSES else f', ... ({len(names)} in all)'
    yield f'- Classes, in the order of the outputs: {shown}{more}'
  yield ''


def _quality(
  description: Mapping[str, Any], results: Mapping[str, Any]
) -> Iterator[str]:
  score, row = report.compared_by(results)[-1], _row(description, results)
  seed = row['seeds'][str(description['seed'])]
  own = seed['test'][description['model']][score.name]
  percent = ', in percent' if score.percent else ''

  def shown(value: Any) -> str:
    return f'{value:.{score.digits}f}'

  lines = report.grouped(results)
  reference, others = verdicts.judged(lines, score)
  yield f'## Quality: {score.name} on the test split{percent}'
  yield ''
  yield f'- This student: {shown(score.shown(own))}'
  for line in lines:
    is_teacher = line.row is not None and not line.is_student
    is_other = line is reference and line.row is not row
    if (is_teacher or is_other) and line.row is not None:
      role = 'Teacher' if is_teacher else 'Compared with'
      mean = shown(np.mean(line.scores(score)))
      yield f'- {role}: {mean} ({line.title})'
  for line in lines:
    if line.row is row and line.title in others:
      verdict = others[line.title]
      yield f'- Verdict: {verdict.word} ({verdicts.sentence(verdict)})'
  measured = report.score_of(results)
  for split, scores in description.get('scores', {}).items():
    file, student = (
      f'{measured.shown(scores[name]):.{measured.digits}f}'
      for name in ('file', 'student')
    )
    yield (
      f'- With integers of 8 bits, {measured.name} on the {split} split: '
      f'{file}; with floats: {student}'
    )
  yield from _latency(description)
  yield ''


def _latency(description: Mapping[str, Any]) -> Iterator[str]:
  latency = description.get('latency')
  if latency is None:
    return
  teacher = latency['teacher']
  beside = '' if teacher is None else f'; the teacher takes {teacher:.3g} ms'
  yield (
    f'- Latency: {latency["student"]:.3g} ms for one image{beside} '
    f'({latency["runtime"]}, 1 thread, {latency["processor"]})'
  )


def _use(name: str, description: Mapping[str, Any]) -> Iterator[str]:
  kind = name.rpartition('.')[2]
  code = _code(kind, description).replace('FILE', name)
  yield '## Use'
  yield ''
  yield f'```python\n{code}```'
  yield ''
  yield '## Licence'
  yield ''
  yield (
    'You decide on the licence of this file. Consider the licences of the '
    'data and of the teacher, which may restrict it.'
  )


def _code(kind: str, description: Mapping[str, Any]) -> str:
  """Returns the lines that run a file; the first ones read an image for it."""
  imports, _, program = table.FORMATS[kind].loading.partition('\n\n')
  image = reading.code(description)
  if not image:
    shape = ', '.join(map(str, description['image_shape']))
    image = f'# raw_images: uint8 [B, {shape}], see above.\n'
  elif _IMPORT not in imports:
    imports += f'\n{_IMPORT}'
  return f'{imports}\n\n{image}{program}'


def _numbers(values: Sequence[float]) -> str:
  return str([round(value, 3) for value in values])
