"""Small runs on all available devices; test_sharding.py starts this script.

`python on_devices.py FOLDER` writes the results to FOLDER.
"""

import io
import json
import pathlib
import re
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset, Model, Network, Stage
from jaxdistill.data.loading import batches, streaming
from jaxdistill.data.sources import arrays, images
from jaxdistill.data.transforms import augment
from jaxdistill.methods.distpro import method as distpro
from jaxdistill.methods.distpro import pathways
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet
from jaxdistill.networks.weights import files
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification, evaluation
from jaxdistill.training import loop, programs, sources
from jaxdistill.training.distributed import sharding

BATCH = 16
STEPS = 20
METHODS = {
  'supervised': joint.supervised,
  'kd': joint.kd,
  # Its loss relates the examples of a batch to each other.
  'sp': lambda recipe: joint.joint(
    recipe, terms={'sp': objectives.sp(weight=100.0)}
  ),
}
SPACE = pathways.all_pairs(
  transforms=('T1',), student=('stem', 'group1'), teacher=('group1',)
)


def network(width: int) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width)),
      Stage('group1.block1', resnet.BasicBlock(2 * width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )


def data() -> Dataset:
  """3 classes, each an image plus noise: 160 train, 37 validation."""
  rng = np.random.default_rng(0)
  label = np.arange(210) % 3
  centers = rng.uniform(60, 190, (3, 8, 8, 1))
  image = (centers[label] + rng.normal(0, 40, (210, 8, 8, 1))).clip(0, 255)
  image = image.astype(np.uint8)
  return arrays.from_arrays(
    image[:197], label[:197], image[197:], label[197:], validation=37
  )


DATA = data()
PREPROCESS = augment.standardize(DATA.mean, DATA.std)
RECIPE = recipes.recipe(
  DATA,
  classification(),
  epochs=2,
  batch_size=BATCH,
  augment=augment.crop_flip(padding=1),
  optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
)


def carry() -> dict[str, Model]:
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return {
    role: Model(
      network(width), graph.init(network(width), jax.random.key(width), image)
    )
    for role, width in (('student', 4), ('teacher', 6))
  }


def fit(name: str, **options) -> loop.Fitted:
  """Runs a method, with evaluation whose last batch is smaller than others."""
  mesh = sharding.make_mesh(options.get('model_parallel', 1))

  def evaluated(model):
    split = DATA.splits['validation']
    return evaluation.evaluate(
      model,
      split,
      RECIPE.task,
      PREPROCESS,
      batch_size=16,
      sharding=sharding.rows(mesh),
    )

  options = loop.FitOptions(evaluate=evaluated, **options)
  return loop.fit(METHODS[name](RECIPE), carry(), DATA, options=options)


def search() -> dict[str, Any]:
  """The result of a search of DistPro, after 16 steps."""
  method = distpro.distpro_search(RECIPE, space=SPACE)
  end = loop.fit(method, carry(), DATA).carry
  return {'student': end['student'].variables, 'process': end['process']}


def stop_at(count):
  """Returns a function that returns True from call number `count` on."""
  calls = iter(range(10**6))
  return lambda: next(calls) >= count


def save(folder, name, fitted):
  tree = {
    'last': fitted.carry['student'].variables,
    'best': fitted.best['student'].variables,
  }
  files.save_tree(folder / f'{name}.safetensors', tree, fitted.best_step)


def program(name: str) -> str:
  """The text of a compiled step."""
  mesh = sharding.make_mesh()
  (build,) = METHODS[name](RECIPE)
  phase = build(carry())
  state, frozen = sharding.place(phase.init(jax.random.key(0), carry()), mesh)
  rng = sharding.place_key(jax.random.key(1), mesh)
  source = sources.of_phase(phase, {}, DATA, (0,), mesh)
  batch = sources.draw(source, 0, 1)
  traced = programs.trace(phase, (state, frozen, batch, rng), mesh)
  layout = sharding.layout(state, mesh)
  step = programs.compiled(programs.shared([traced]), layout, mesh)(None, 1)
  arguments = (state, traced.totals, frozen, batch, rng, np.int32(0))
  return step.lower(*arguments).compile().as_text()


def all_reduces(text: str) -> list[list[str]]:
  """The shapes that each all-reduce of a compiled step reduces."""
  return [
    re.findall(r'f32\[([\d,]*)\]', line.partition('all-reduce(')[0])
    for line in text.splitlines()
    if ' all-reduce(' in line
  ]


def refusals() -> dict[str, str]:
  """Case -> the message of its error."""
  messages = {}
  for name, try_it in (
    ('model', lambda: sharding.make_mesh(3)),
    ('zero', lambda: sharding.make_mesh(0)),
    ('batch', lambda: sharding.check_batch_size(20, sharding.make_mesh())),
    ('small', lambda: sharding.check_batch_size(7, sharding.make_mesh())),
    ('loop', refused_in_the_loop),
  ):
    try:
      try_it()
    except UsageError as error:
      messages[name] = str(error)
  return messages


def refused_in_the_loop():
  recipe = RECIPE._replace(stream=RECIPE.stream._replace(batch_size=12))
  loop.fit(joint.supervised(recipe), carry(), DATA)


def metrics() -> dict[str, list[float]]:
  """Metrics on splits and with batches that 8 devices do not divide."""
  model = carry()['teacher']
  results = {}
  for size, batch_size in ((37, 10), (37, 500), (17, 8), (5, 500)):
    split = {k: v[:size] for k, v in DATA.splits['validation'].items()}
    arguments = (model, split, RECIPE.task, PREPROCESS)
    spread = {
      'batch_size': batch_size,
      'sharding': sharding.rows(sharding.make_mesh()),
    }
    results[f'{size} by {batch_size}'] = [
      *evaluation.evaluate(*arguments, **spread).values(),
      *evaluation.predict(*arguments, **spread).tolist(),
    ]
  return results


def sizes() -> dict[str, float]:
  """How many values of the student's parameters one device holds of all."""
  mesh = sharding.make_mesh(2)
  params = sharding.place(carry()['student'].variables['params'], mesh)
  leaves = jax.tree.leaves(params)
  return {
    'held': sum(x.addressable_shards[0].data.size for x in leaves),
    'all': sum(x.size for x in leaves),
  }


class Encoded(NamedTuple):
  """Image files in memory."""

  files: list[bytes]

  def read(self, places):
    return [self.files[place] for place in places]

  def name(self, place):
    return str(place)


def streamed() -> list[list[int]]:
  """How many rows of a streamed batch each device holds.

  The list is empty if a batch differs from that of data in memory. The first
  step is loaded on demand, the others ahead of time.
  """
  encoded = []
  for image in DATA.splits['train']['image']:
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(file, 'PNG')
    encoded.append(file.getvalue())
  arrays = DATA.splits['train']
  column = images.LazyImages(
    Encoded(encoded), np.arange(len(encoded)), (8, 8, 1)
  )
  rows_sharding = sharding.rows(sharding.make_mesh())
  common = BATCH, (0,), rows_sharding
  memory = batches.Batches(arrays, *common)
  stream = streaming.StreamedBatches(
    {**arrays, 'image': column}, *common, workers=0
  )
  rows = []
  for step in (3, 4, 5):
    batch, expected = stream(step), memory(step)
    same = all(
      (np.asarray(batch[k]) == np.asarray(expected[k])).all()
      and batch[k].sharding == expected[k].sharding
      for k in arrays
    )
    shards = batch['image'].addressable_shards if same else ()
    rows.append([len(shard.data) for shard in shards])
  stream.close()
  return rows


def main(folder: pathlib.Path) -> None:
  for name in METHODS:
    # One of them takes several steps per call.
    save(folder, name, fit(name, steps_per_call=2 if name == 'sp' else 1))
  files.save_tree(folder / 'search.safetensors', search(), {})
  try:
    fit('kd', directory=str(folder / 'stopped'), interrupted=stop_at(10))
  except loop.Interrupted:
    (folder / 'stopped' / 'interrupted').touch()
  numbers = {
    'devices': jax.device_count(),
    'all-reduces': all_reduces(program('supervised')),
    'metrics': metrics(),
    'refusals': refusals(),
    'streamed': streamed(),
  }
  sharding.LARGE = 64
  numbers['sizes'] = sizes()
  save(folder, 'model', fit('kd', model_parallel=2))
  (folder / 'numbers.json').write_text(json.dumps(numbers))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
