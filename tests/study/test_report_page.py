"""report.html: what it says, from small work directories written by hand."""

import html.parser
import json
import math

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Metric
from jaxdistill.study import report
from jaxdistill.study.page import charts, document, facts
from jaxdistill.study.verdicts import judged

VOID = {'meta'}


class Page(html.parser.HTMLParser):
  """Reads a page and checks that every tag is closed."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.texts = [], [], []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.texts.append(data)

  @property
  def text(self):
    return ' '.join(' '.join(self.texts).split())

  def all(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


def run(score, parameters=1710):
  metrics = {'top1': score / 100, 'loss': 0.5}
  return {
    'steps': 300,
    'seconds': 6.0,
    'parameters': parameters,
    'agreement': 0.9,
    'test': {'last': metrics, 'best': metrics},
    'validation': {'last': metrics},
    'versions': {'jax': '1.2.3'},
    'device': 'cpu cpu x1',
    'date': '2026-01-02',
  }


def row(label, method, *scores, role='student', **others):
  keys = {
    'data': {'name': 'digits', 'path': None},
    'teacher': {'name': 'resnet8', 'training': {'epochs': 20}},
    'method': {'name': method, 'temperature': 4.0},
    'epochs': 100,
    'batch_size': 64,
  }
  if role == 'student':
    keys['student'] = {'name': 'resnet8', 'widths': [4, 4, 8]}
  seeds = {str(seed): run(score) for seed, score in enumerate(scores)}
  return {'label': label, 'config': keys, 'seeds': seeds, **others}


def trial(rate, chosen, *scores):
  values = {'schedule.rate': rate}
  section = {'sweep': 'kd', 'values': values, 'chosen': chosen}
  return row(f'kd: rate={rate}', 'kd', *scores, trial=section)


TEACHER = row('teacher', 'supervised', 97.0, role='teacher')
ROWS = (
  TEACHER,
  row('student alone', 'supervised', 85.0, 87.0),
  row('kd', 'kd', 90.0, 91.0),
  row('bad', 'at', 70.0, 71.0),
)


@pytest.fixture
def write(tmp_path):
  """A function that makes a work directory and returns its report and page."""

  def make(
    *rows, records=(), config='def get_config():\n  return {}\n', **others
  ):
    results = {'rows': rows, 'score': 'top1', **others}
    (tmp_path / 'results.json').write_text(json.dumps(results))
    lines = ''.join(json.dumps(record) + '\n' for record in records)
    (tmp_path / 'metrics.jsonl').write_text(lines)
    if config:
      (tmp_path / 'config.py').write_text(config)
    written = document.write_report(tmp_path)
    return written, Page(written.path.read_text())

  return make


def records(label, seed, scores, **others):
  return [
    {
      **{'row': label, 'seed': seed, 'order': 0, 'phase': 'joint'},
      **{'step': 10 * (i + 1), 'split': 'validation', 'top1': score, **others},
    }
    for i, score in enumerate(scores)
  ]


def test_each_student_is_judged_against_the_one_without_a_teacher(write):
  written, page = write(*ROWS)
  assert written.reference == 'student alone'
  words = {label: v.word for label, v in written.verdicts.items()}
  assert words == {'kd': 'HELPS', 'bad': 'HURTS'}
  assert 'student alone , which trains without a teacher' in page.text
  assert 'HELPS +4.50 points, and 2 seeds resolve 2.24' in page.text
  assert document.as_text(written).splitlines() == [
    str(written.path),
    'reference: student alone',
    'kd: HELPS (+4.50 points, and 2 seeds resolve 2.24)',
    'bad: HURTS (-15.50 points, and 2 seeds resolve 2.24)',
  ]


@pytest.mark.parametrize(
  ('rows', 'reference'),
  [
    ([row('a', 'kd', 1.0), row('b', 'supervised', 1.0)], 'b'),
    ([row('a', 'kd', 1.0), row('b', 'at', 1.0)], 'a'),
    (
      [
        row('a', 'kd', 1.0),
        row('b', 'supervised', 1.0),
        row('c', 'supervised', 1.0),
      ],
      'a',
    ),
  ],
)
def test_the_reference_is_the_only_supervised_row_or_the_first(rows, reference):
  lines = report.grouped({'rows': [TEACHER, *rows], 'score': 'top1'})
  assert judged(lines, Metric('top1'))[0].title == reference


def test_the_only_student_has_no_verdict_and_a_teacher_alone_no_student(write):
  written, page = write(TEACHER, row('kd', 'kd', 90.0))
  assert (written.reference, written.verdicts) == ('kd', {})
  assert 'The only student is kd' in page.text
  written, page = write(TEACHER)
  assert written.reference is None
  assert 'No student is finished yet.' in page.text


def test_the_page_has_every_cell_of_the_text_table(write):
  _, page = write(*ROWS)
  for line in report.as_text({'rows': ROWS, 'score': 'top1'}).splitlines():
    if not line.startswith('|--'):
      for cell in line.strip('|').split('|'):
        assert cell.strip() in page.text


@pytest.mark.parametrize(
  'bad',
  ['<script>alert(1)</script>', '"><img src=x onerror=y>', "</style>&'\x00"],
)
def test_texts_of_a_config_cannot_become_markup(write, bad):
  rows = [row('alone', 'supervised', 80.0, 81.0), row(bad, bad, 90.0, 91.0)]
  rows[1]['config']['data']['path'] = bad
  log = records(bad, 0, [0.5, 0.6])
  _, page = write(*rows, records=log, config=f'# {bad}')
  names = {name for name, _ in page.tags}
  assert not names & {'script', 'img', 'link', 'iframe'}
  assert page.text.count(bad.replace('\x00', '\ufffd')) >= 4
  used = {key for _, attrs in page.tags for key in attrs}
  assert not any(key.startswith('on') for key in used)


def test_the_page_loads_nothing(write):
  written, page = write(*ROWS, records=records('kd', 0, [0.5, 0.9]))
  used = {key for _, attrs in page.tags for key in attrs}
  assert not used & {'src', 'href', 'srcset', 'data'}
  text = written.path.read_text()
  assert 'http' not in text and '@import' not in text and 'url(' not in text


def test_the_page_can_be_read_aloud_and_in_the_dark(write):
  written, page = write(*ROWS, records=records('kd', 0, [0.5, 0.9]))
  assert all(cell['scope'] in ('row', 'col') for cell in page.all('th'))
  pictures = page.all('svg')
  assert len(pictures) == 2
  assert all(picture['role'] == 'img' for picture in pictures)
  assert 'kd 90.00' in pictures[0]['aria-label']
  assert 'kd 1,710 parameters and 90.50' in pictures[1]['aria-label']
  assert page.all('html') == [{'lang': 'en'}]
  text = written.path.read_text()
  assert 'prefers-color-scheme: dark' in text and '@media print' in text


def test_curves_are_averaged_over_seeds_and_kept_with_one_that_is_missing(
  write,
):
  log = [*records('kd', 0, [0.2, 0.8]), *records('kd', 1, [0.4, 0.9])]
  log += records('bad', 0, [math.nan, 0.5])
  _, page = write(*ROWS, records=log)
  label = page.all('svg')[0]['aria-label']
  assert 'kd 85.00' in label
  assert 'bad 50.00' in label
  assert 'student alone' not in label
  assert len(page.all('polyline')) == 2


def test_without_a_validation_split_a_sentence_takes_the_place_of_curves(write):
  log = records('kd', 0, [0.2, 0.8], split='train')
  _, page = write(*ROWS, records=log)
  assert len(page.all('svg')) == 1
  assert 'no scores on a validation split' in page.text


def test_a_log_that_cannot_be_read_costs_the_curves_only(write, tmp_path):
  written, _ = write(*ROWS)
  (tmp_path / 'metrics.jsonl').unlink()
  (tmp_path / 'metrics.jsonl').mkdir()
  again = document.write_report(tmp_path)
  assert again.verdicts == written.verdicts
  page = Page(again.path.read_text())
  assert len(page.all('svg')) == 1
  assert 'metrics.jsonl, cannot be read or has no scores' in page.text


def test_the_trials_of_a_sweep_are_one_line_and_one_table(write):
  rows = [
    row('alone', 'supervised', 80.0, 81.0),
    *(trial(0.1, False, 85.0), trial(0.3, True, 90.0, 91.0)),
  ]
  written, page = write(*rows)
  assert list(written.verdicts) == ['kd (best of 2 trials)']
  assert written.verdicts['kd (best of 2 trials)'].gain == pytest.approx(10.0)
  assert len(page.all('details')) == 1
  better, worse = map(page.text.index, ('rate 0.3', 'rate 0.1'))
  assert better < worse
  assert page.text.count('chosen') == 1


def test_trials_that_diverged_are_named(write):
  diverged = {'label': 'kd: rate=9', 'seed': 0, 'message': 'loss <b>NaN</b>'}
  _, page = write(trial(0.1, True, 85.0, 86.0), diverged=[diverged])
  assert 'kd: rate=9, seed 0: diverged: loss <b>NaN</b>' in page.text


def test_an_unfinished_sweep_has_no_verdict(write):
  written, page = write(
    row('alone', 'supervised', 80.0), trial(0.1, False, 85.0)
  )
  assert written.verdicts == {}
  assert 'rate 0.1' in page.text


def test_a_page_of_many_rows_and_trials_stays_small(write):
  log = [
    record
    for i in range(40)
    for record in records(f'row {i}', 0, [0.5 + i / 100] * 300)
  ]
  rows = [row(f'row {i}', 'kd', 80.0 + i, 81.0) for i in range(40)]
  rows += [trial(i, i == 0, 80.0) for i in range(1000)]
  written, page = write(*rows, records=log)
  assert written.path.stat().st_size < 300 * 1024
  assert 'the best 50 of 1,000' in page.text


def test_the_command_and_the_config_are_shown_if_they_are_kept(write):
  _, page = write(*ROWS, config='def get_config():\n  return {"a": 1 < 2}\n')
  assert 'jaxdistill run config.py --workdir=runs/' in page.text
  assert '{"a": 1 < 2}' in page.text


def test_a_network_is_not_shown_with_the_number_of_outputs_of_its_default():
  narrow = {'name': 'scaled', 'network': {'name': 'vgg8', 'num_classes': 1000}}
  trained = {'name': 'resnet8', 'num_classes': 1000, 'training': {'epochs': 2}}
  shown = facts.settings({'student': narrow, 'teacher': trained})
  assert shown == {'student': 'scaled(network=vgg8)', 'teacher': 'resnet8'}


def test_a_config_that_is_not_kept_is_explained(write):
  _, page = write(*ROWS, config=None)
  assert 'not Python literals' in page.text


def test_the_same_files_give_the_same_page(write):
  written, _ = write(*ROWS, records=records('kd', 0, [0.5, 0.9]))
  before = written.path.read_bytes()
  assert document.write_report(written.path.parent).path.read_bytes() == before


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (None, 'expected a work directory with results.json'),
    ('{"rows": [', 'cannot be read as JSON'),
    ('[1]', "expected the keys 'rows' and 'score'"),
    ('{"rows": []}', "expected the keys 'rows' and 'score'"),
  ],
)
def test_a_folder_without_results_is_refused(tmp_path, content, words):
  if content is not None:
    (tmp_path / 'results.json').write_text(content)
  with pytest.raises(UsageError, match=words):
    document.write_report(tmp_path)


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [
    (0, 100, [0, 20, 40, 60, 80, 100]),
    (84.2, 98.9, [85, 90, 95]),
    (0.0, 0.9, [0.0, 0.2, 0.4, 0.6, 0.8]),
  ],
)
def test_axes_have_round_numbers(low, high, expected):
  assert charts.ticks(low, high) == pytest.approx(expected)


def test_labels_do_not_cover_each_other():
  places = charts.spread([50.0, 52.0, 99.0, 51.0], 10.0, 0.0, 100.0)
  assert sorted(places) == [places[0], places[3], places[1], places[2]]
  gaps = [b - a for a, b in zip(sorted(places), sorted(places)[1:])]
  assert min(gaps) >= 10.0
  assert min(places) >= 0 and max(places) <= 100
