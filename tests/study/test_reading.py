"""Image files of every kind, read as the data set of a student reads them."""

import json

import jax
import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill import study
from jaxdistill.data.sources import image_trees
from jaxdistill.networks import graph
from jaxdistill.study import exports, opening, predictors, reading
from jaxdistill.study.formats import table
from jaxdistill.study.predictors import Predictor
from jaxdistill.study.reading import Reading

KEYS = {'background': (0, 0, 0), 'range': (0, 4095)}
DATA = {'image_size': 8, 'test': 0.5, 'validation': 0, **KEYS}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Two classes of images of all kinds and sizes."""
  root = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  turned = PIL.Image.Exif()
  turned[0x0112] = 6
  for name in ('ant', 'bee'):
    (root / name).mkdir()
    for i, size in enumerate([(9, 17), (40, 23), (61, 30), (8, 8)]):
      levels = rng.integers(0, 256, (*size, 4), np.uint8)
      image = PIL.Image.fromarray(levels)
      file = str(root / name / str(i))
      image.save(f'{file}.png')
      image.convert('CMYK').save(f'{file}-cmyk.JPG')
      image.convert('RGB').save(f'{file}-turned.jpeg', exif=turned)
      image.convert('L').save(f'{file}-grey.webp')
      image.convert('P').save(f'{file}.gif')
      wide = levels[..., 0].astype(np.uint16) * 16
      PIL.Image.fromarray(wide).save(f'{file}-wide.png')
  return root


@pytest.fixture(scope='module')
def plan(photos, place):
  return study.plan(
    {
      'data': {'name': 'images', 'path': str(photos), **DATA},
      'student': {'name': 'network_for_tests:net'},
      'method': {'name': 'supervised'},
      'batch_size': 4,
      'epochs': 1,
    }
  )


@pytest.mark.parametrize('kind', table.FORMATS)
def test_a_file_predicts_for_image_files_what_evaluation_counts(
  kind, plan, photos, cli, tmp_path
):
  for package in table.FORMATS[kind].packages:
    pytest.importorskip(package)
  network = plan.networks['student']
  variables = graph.init(network, jax.random.key(0), {'image': plan.image})
  scaled = jax.tree.map(lambda x: 3 * x, variables)  # clear differences
  model = jd.Model(network, scaled)
  path = tmp_path / f'student.{kind}'
  about = exports.write(plan, model, path)
  path.with_name(f'{path.name}.json').write_text(json.dumps(about))
  _, test = image_trees.read_splits(str(photos), test=DATA['test'])
  code, out, err = cli.call('predict', path, *test.paths)
  assert code == 0, err
  images = plan.dataset.splits['test']['image']
  expected = predictors.of_plan(plan, model).probabilities(images)
  assert [line.split('\t') for line in out.splitlines()] == [
    [file, test.names[row.argmax()], f'{row.max():.4f}']
    for file, row in zip(test.paths, expected)
  ]
  expected_reading = Reading(**KEYS, fitting='square')
  assert predictors.of_plan(plan, model).reading == expected_reading
  assert opening.predictor(path).reading == expected_reading
  assert len({f'{row.max():.4f}' for row in expected}) > 10


@pytest.mark.parametrize(
  ('section', 'expected'),
  [
    (
      {'name': 'folder', 'background': 'black', 'range': [0, 4095]},
      Reading(**KEYS, fitting='square'),
    ),
    ({'name': 'npz'}, Reading(fitting='square')),
    (
      {'name': 'mine:data', 'background': 'music', 'range': 3},
      Reading(fitting='square'),
    ),
    ({'name': 'mask_folder'}, Reading(fitting='stretched')),
    ({'name': 'coco'}, Reading(fitting='fitted')),
  ],
)
def test_a_data_set_says_how_image_files_are_read(section, expected):
  task = jd.tasks.embedding()
  assert reading.of_data(section, task, (8, 8, 3)) == expected


@pytest.mark.parametrize(
  ('task', 'shape', 'expected'),
  [
    (jd.tasks.classification(), (8, 8, 3), 'square'),
    (jd.tasks.classification(), (8, 16, 3), 'stretched'),
    (jd.tasks.segmentation(), (8, 8, 3), 'stretched'),
    (jd.tasks.detection(), (8, 8, 3), 'fitted'),
  ],
)
def test_the_task_and_the_size_say_how_images_are_fitted(task, shape, expected):
  assert reading.usual_fitting(task, shape) == expected


@pytest.mark.parametrize(
  ('fitting', 'expected'),
  [(None, 8 * 8), ('square', 8 * 8), ('stretched', 4 * 8), ('fitted', 2 * 8)],
)
def test_images_are_fitted_as_the_file_of_the_student_says(
  cli, monkeypatch, tmp_path, fitting, expected
):
  monkeypatch.chdir(tmp_path)
  image = np.zeros((8, 16, 3), np.uint8)
  image[:, 4:12] = 255
  PIL.Image.fromarray(image).save('middle.png')
  seen = []

  def run(images):
    seen.append(images)
    return np.eye(2)[[0] * len(images)]

  student = Predictor(
    run, (8, 8, 3), jd.tasks.embedding(), reading=Reading(fitting=fitting)
  )
  monkeypatch.setattr(opening, 'predictor', lambda path: student)
  code, _, err = cli.call('predict', 'student', 'middle.png')
  assert code == 0, err
  np.testing.assert_allclose(seen[0][0, ..., 0].sum() / 255, expected, atol=1)


@pytest.mark.parametrize('background', [[0, 0, 0], [255, 255, 255]])
def test_the_code_of_a_card_reads_an_image_as_the_data_set(photos, background):
  file = photos / 'ant' / '1.png'
  about = {
    'image_shape': [8, 8, 1],
    'fitting': 'square',
    'background': background,
    'range': None,
  }
  code = reading.code(about).replace('photo.jpg', str(file))
  space = {'jd': jd}
  exec(code, space)
  expected = jd.data.read_image(
    file, image_size=8, channels=1, background=background
  )
  np.testing.assert_array_equal(space['raw_images'], expected[None])
  assert ('background' in code) == (background == [0, 0, 0])
  assert reading.code({**about, 'fitting': 'stretched'}) == ''
