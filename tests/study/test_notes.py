"""Notes about the data that are printed before training."""

import numpy as np
import pytest

from jaxdistill import study
from jaxdistill.data.sources import channels, images
from jaxdistill.study import notes


@pytest.fixture(scope='module')
def plan(cli, config):
  return study.plan(cli.load(config))


def test_a_note_says_that_images_are_enlarged(cli, config, plan):
  assert notes.size_note(plan) == ''
  larger = {'name': 'imagenet', 'size': 9}
  enlarged = study.plan({**cli.load(config).to_dict(), 'augment': larger})
  note = notes.size_note(enlarged)
  assert 'images of 8 x 8 pixels are enlarged to 9 x 9' in note
  assert notes.notes(enlarged) == [note]


def test_a_note_says_that_statistics_are_those_of_a_sample(plan):
  count = channels.SAMPLE + 1
  image = images.LazyImages(None, np.arange(count), (8, 8, 1))

  def note(image, **data):
    train = {'image': image, 'label': np.zeros(len(image), int)}
    row = plan.rows[0]._replace(resolved={'data': data})
    dataset = plan.dataset._replace(splits={'train': train})
    return notes.statistics_note(plan._replace(dataset=dataset, rows=(row,)))

  assert 'mean and std are estimated from 1,024 of 1,025 images' in note(image)
  assert 'data: std are estimated' in note(image, mean=[1.0], std=None)
  assert note(image, mean=[1.0], std=[1.0]) == ''
  assert note(image.select(np.arange(1024))) == ''
  assert note(np.zeros((count, 8, 8, 1), np.uint8)) == ''


def test_a_note_names_the_classes_that_validation_lacks(plan):
  assert notes.classes_note(plan, 'validation') == ''

  def note(label):
    splits = {**plan.dataset.splits, 'validation': {'label': np.array(label)}}
    dataset = plan.dataset._replace(
      splits=splits, num_classes=3, label_names=('ant', 'bee', 'cat')
    )
    return notes.classes_note(plan._replace(dataset=dataset), 'validation')

  assert note([0, 1, 2]) == ''
  assert "no examples of 2 of the 3 classes: 'ant', 'cat'" in note([1, 1])
  assert note(np.zeros((2, 4, 4))) == ''
  assert note([3, 4]) == ''  # identities that training does not have
  without = {'train': plan.dataset.splits['train']}
  alone = plan.dataset._replace(splits=without)
  assert notes.classes_note(plan._replace(dataset=alone), 'validation') == ''
