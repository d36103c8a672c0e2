"""`jaxdistill predict`: what is printed and written for each kind of task."""

import json
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.study import opening
from jaxdistill.study.predictors import Predictor
from jaxdistill.study.reading import Reading
from jaxdistill.tasks import detection, embedding, segmentation

NAMES = ('ant', 'bee')


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Two images of 16 x 24 pixels, in the working directory."""
  monkeypatch.chdir(tmp_path)
  for name, level in (('dark', 10), ('light', 240)):
    PIL.Image.new('RGB', (24, 16), (level,) * 3).save(f'{name}.png')
  return 'dark.png', 'light.png'


@pytest.fixture
def predict(cli, files, monkeypatch):
  """Predicts for both images with a predictor; returns the lines."""

  def predict(run, task, names=()):
    student = Predictor(run, (8, 8, 3), task, names)
    monkeypatch.setattr(opening, 'predictor', lambda path: student)
    code, out, err = cli.call('predict', 'student', *files)
    assert code == 0, err
    return [line.split('\t') for line in out.splitlines()]

  return predict


def test_a_classifier_prints_the_class_and_its_probability(predict):
  def run(images):
    is_light = (images.mean((1, 2, 3)) > 128).astype(np.float32)
    return np.stack([1 - is_light, is_light], -1) * np.log(3)

  assert predict(run, jd.tasks.classification(), NAMES) == [
    ['dark.png', 'ant', '0.7500'],
    ['light.png', 'bee', '0.7500'],
  ]
  assert predict(run, jd.tasks.classification())[1][1] == '1'


def test_vectors_are_written_to_one_file(predict):
  lines = predict(lambda images: images[:, 0, 0] + [0, 0, 1], embedding())
  vectors = np.load('predictions/vectors.npy')
  assert lines[1] == ['light.png', 'predictions/vectors.npy, row 1']
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_maps_have_the_size_of_the_image_and_classes_as_values(predict):
  def run(images):  # the left half is class 0, and the right one class 2
    scores = np.zeros((len(images), 8, 8, 3), np.float32)
    scores[:, :, :4, 0] = scores[:, :, 4:, 2] = 1
    return scores

  assert predict(run, segmentation())[0] == [
    'dark.png',
    'predictions/dark.png',
  ]
  with PIL.Image.open('predictions/dark.png') as image:
    assert image.mode == 'P'
    mask = np.asarray(image)
  expected = np.repeat([[0, 2]], 12, axis=1).repeat(16, axis=0)
  np.testing.assert_array_equal(mask, expected)


def test_boxes_are_in_pixels_of_the_original_image(predict):
  def run(images):
    count = len(images)
    boxes = np.zeros((count, 3, 4), np.float32)
    boxes[:, 0] = (1, 2, 3, 4)
    # Below the image, where its resized form is black.
    boxes[:, 1] = (6, 2, 8, 4)
    classes = np.tile(np.array([1, 1, -1], np.int32), (count, 1))
    return {
      'boxes': boxes,
      'scores': np.full((count, 3), 0.5),
      'classes': classes,
    }

  lines = predict(run, detection(), NAMES)
  assert lines[0] == ['dark.png', 'predictions/objects.json, 1 objects']
  with open('predictions/objects.json') as file:
    entries = json.load(file)
  # An image of 16 x 24 pixels fits into 8 x 8 with a third of its size.
  assert entries[0] == {
    'file': 'dark.png',
    'objects': [
      {'class': 1, 'name': 'bee', 'score': 0.5, 'box': [3.0, 6.0, 9.0, 12.0]}
    ],
  }


TWO_FOLDERS, SAME_FILE = (
  json.dumps(
    {
      'images': [{'id': i, 'file_name': x} for i, x in enumerate(names)],
      'categories': [{'id': 2, 'name': name} for name in NAMES],
    }
  )
  for names in (('a/light.png', 'b/light.png'), ('a/dark.png', './a/dark.png'))
)
TWICE = json.dumps({'images': [{'id': 1, 'file_name': 'a'}] * 2})


@pytest.fixture
def listing(tmp_path):
  """A file of COCO that lists two images and three categories."""
  images = [
    {'id': 40, 'file_name': 'test/light.png'},
    {'id': 30, 'file_name': 'dark.png'},
  ]
  categories = [
    {'id': 9, 'name': 'bee'},
    {'id': 5, 'name': 'fly'},
    {'id': 2, 'name': 'ant'},
  ]
  file = tmp_path / 'listing.json'
  file.write_text(json.dumps({'images': images, 'categories': categories}))
  return file


@pytest.fixture
def detector(monkeypatch):
  """A student that finds a bee in each image; returns a function of names."""

  def run(images):
    count = len(images)
    return {
      'boxes': np.tile(np.array([[1.0, 2.0, 3.0, 4.0]]), (count, 1, 1)),
      'scores': np.full((count, 1), 0.5),
      'classes': np.ones((count, 1), np.int32),
    }

  def opened(names=NAMES):
    student = Predictor(run, (8, 8, 3), detection(), names)
    monkeypatch.setattr(opening, 'predictor', lambda path: student)

  return opened


def test_objects_are_written_as_the_results_of_coco(
  cli, files, detector, listing
):
  detector()
  pathlib.Path('test').mkdir()
  shutil.copy('light.png', 'test')
  paths = ['test/light.png', 'dark.png']
  code, out, err = cli.call(
    'predict', 'student', *paths, f'--annotations={listing}'
  )
  assert code == 0, err
  file = 'predictions/coco_results.json'
  assert out.splitlines() == [f'{path}\t{file}, 1 objects' for path in paths]
  box = {'category_id': 9, 'bbox': [6.0, 3.0, 6.0, 6.0], 'score': 0.5}
  results = json.loads(pathlib.Path(file).read_text())
  assert results == [{'image_id': i, **box} for i in (40, 30)]


def test_a_group_of_the_same_name_is_not_the_category_of_results(
  cli, files, detector, listing
):
  detector()
  content = json.loads(listing.read_text())
  groups = [{**category, 'id': 0} for category in content['categories'][:1]]
  content['categories'] = [*groups, *content['categories']]
  used = [{'category_id': c['id']} for c in content['categories'][1:]]
  listing.write_text(json.dumps({**content, 'annotations': used}))
  code, _, err = cli.call(
    *('predict', 'student', 'dark.png'), f'--annotations={listing}'
  )
  assert code == 0, err
  (result,) = json.loads(
    pathlib.Path('predictions/coco_results.json').read_text()
  )
  assert result['category_id'] == 9


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    ('./dark.png', 'dark.png'),
    ('dark.png', './dark.png'),
    ('./images/dark.png', 'dark.png'),
    ('images//dark.png', 'dark.png'),
    ('./FOLDER/dark.png', '../FOLDER/dark.png'),
    ('/elsewhere/images/dark.png', 'dark.png'),
    ('FOLDER/dark.png', 'dark.png'),
    ('dark.png', '{here}/dark.png'),
    ('{here}/dark.png', 'dark.png'),
  ],
)
def test_images_are_recognised_however_their_paths_are_written(
  cli, files, detector, listing, name, path
):
  detector()
  here = pathlib.Path.cwd()
  name, path = (
    x.replace('{here}', str(here)).replace('FOLDER', here.name)
    for x in (name, path)
  )
  content = json.loads(listing.read_text())
  content['images'][1]['file_name'] = name
  listing.write_text(json.dumps(content))
  code, _, err = cli.call(
    *('predict', 'student', path, 'light.png'), f'--annotations={listing}'
  )
  assert code == 0, err
  results = json.loads(
    pathlib.Path('predictions/coco_results.json').read_text()
  )
  assert [entry['image_id'] for entry in results] == [30, 40]


@pytest.mark.parametrize(
  ('names', 'image', 'content', 'words'),
  [
    (
      *(NAMES, 'copy/light.png', None),
      'copy/light.png: expected one of the 2 images that {file} names, such as '
      "'test/light.png'",
    ),
    (NAMES, 'light.png', TWO_FOLDERS, '; 2 names end with light.png'),
    (NAMES, 'dark.png', SAME_FILE, "each file_name, got 'a/dark.png' twice"),
    (
      *(('ant', 'be'), 'dark.png', None),
      "{file}: unknown category 'be'; did you mean 'bee'?",
    ),
    ((), 'dark.png', None, 'names of its classes, got one without names'),
    (NAMES, 'dark.png', '{}', 'keys images and categories, got KeyError'),
    (NAMES, 'dark.png', '{', 'expected a JSON file'),
    (NAMES, 'dark.png', '{"images": []}', 'at least one file_name, got none'),
    (
      *(NAMES, 'dark.png', '{"images": [{"id": "1", "file_name": "a"}]}'),
      "{file}: id of 'a': expected a whole number of at least 0, got '1'",
    ),
    (
      *(NAMES, 'dark.png', TWICE),
      "{file}: expected one entry for each file_name, got 'a' twice",
    ),
  ],
)
def test_a_listing_that_lacks_something_is_refused(
  cli, files, detector, listing, names, image, content, words
):
  detector(names)
  pathlib.Path('copy').mkdir()
  shutil.copy('light.png', 'copy')
  listing.write_text(listing.read_text() if content is None else content)
  code, out, err = cli.call(
    'predict', 'student', image, f'--annotations={listing}'
  )
  assert (code, out) == (2, '')
  (line,) = err.splitlines()
  assert words.replace('{file}', str(listing)) in line


def test_two_files_of_one_listed_image_are_refused(
  cli, files, detector, listing
):
  detector()
  pathlib.Path('copy').mkdir()
  shutil.copy('dark.png', 'copy')
  code, out, err = cli.call(
    *('predict', 'student', 'dark.png', 'copy/dark.png'),
    f'--annotations={listing}',
  )
  assert (code, out) == (2, '')
  assert err == (
    f'jaxdistill: copy/dark.png: expected one file for each image of {listing},'
    ' got dark.png for the same image\n'
  )


def test_a_listing_that_does_not_exist_is_refused(cli, files, detector):
  detector()
  code, _, err = cli.call(
    'predict', 'student', 'dark.png', '--annotations=none.json'
  )
  assert code == 2
  assert err == (
    'jaxdistill: annotations: cannot read none.json (No such file or '
    'directory)\n'
  )


def test_only_a_detector_takes_a_listing(cli, files, monkeypatch, listing):
  student = Predictor(lambda x: x, (8, 8, 3), jd.tasks.classification())
  monkeypatch.setattr(opening, 'predictor', lambda path: student)
  code, _, err = cli.call(
    'predict', 'student', 'dark.png', f'--annotations={listing}'
  )
  assert code == 2
  assert 'finds objects, got one of the task' in err


@pytest.mark.parametrize('size', [(8, 8, 3), (8, 16, 3)])
@pytest.mark.parametrize(
  ('background', 'options', 'label'),
  [
    ((255, 255, 255), (), '1'),
    ((255, 255, 255), ('--background=black',), '0'),
    ((0, 0, 0), (), '0'),
    ((0, 0, 0), ('--background=white',), '1'),
  ],
)
def test_transparent_pixels_show_the_background(
  cli, files, monkeypatch, size, background, options, label
):
  PIL.Image.new('RGBA', (24, 16), (90, 90, 90, 0)).save('clear.png')

  def run(images):
    is_white = (images == 255).all((1, 2, 3)).astype(np.float32)
    return np.stack([1 - is_white, is_white], -1)

  student = Predictor(
    run,
    size,
    jd.tasks.classification(),
    reading=Reading(background=background),
  )
  monkeypatch.setattr(opening, 'predictor', lambda path: student)
  code, out, err = cli.call('predict', 'student', 'clear.png', *options)
  assert code == 0, err
  assert out.split('\t')[1] == label


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    (['predict', 'w'], 'IMAGE'),
    (
      ['predict', 'nowhere', 'dark.png'],
      'nowhere: expected an exported file, got no such file',
    ),
    (['predict', 'nowhere', 'missing.png'], 'missing.png: expected an image'),
  ],
)
def test_a_wrong_call_is_refused_in_one_line(cli, files, command, words):
  code, out, err = cli.call(*command)
  assert (code, out) == (2, '')
  (line,) = err.splitlines()
  assert words in line


def test_a_folder_stands_for_all_images_below_it(cli, files, monkeypatch):
  student = Predictor(
    lambda x: np.eye(2)[[0] * len(x)], (8, 8, 3), jd.tasks.classification()
  )
  monkeypatch.setattr(opening, 'predictor', lambda path: student)
  deep = pathlib.Path('photos', 'deep')
  deep.mkdir(parents=True)
  for place in ('photos/b.JPG', 'photos/.hidden.png', deep / 'caf\udce9.png'):
    shutil.copy('light.png', place)
  pathlib.Path('photos', 'notes.txt').write_text('no image')
  code, out, err = cli.call('predict', 'student', 'dark.png', 'photos')
  assert code == 0, err
  assert [line.split('\t')[0] for line in out.splitlines()] == [
    'dark.png',
    'photos/b.JPG',
    r'photos/deep/caf\xe9.png',  # the byte is not UTF-8
  ]


def test_a_folder_without_images_is_refused(cli, tmp_path):
  code, out, err = cli.call('predict', 'nowhere', tmp_path)
  assert (code, out) == (2, '')
  assert err == (
    f'jaxdistill: {tmp_path}: expected a folder of images, got a folder '
    'without images\n'
  )


def test_an_image_that_cannot_be_read_is_named(cli, files, monkeypatch):
  student = Predictor(lambda x: x, (8, 8, 3), jd.tasks.classification())
  monkeypatch.setattr(opening, 'predictor', lambda path: student)
  with open('text.png', 'w') as file:
    file.write('no image')
  code, _, err = cli.call('predict', 'student', 'dark.png', 'text.png')
  assert code == 2
  (line,) = err.splitlines()
  assert 'text.png' in line
