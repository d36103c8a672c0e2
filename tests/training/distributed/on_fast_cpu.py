"""Runs on the two devices of --fast_cpu; test_fast_devices.py starts this.

`python on_fast_cpu.py FOLDER` writes the results to FOLDER.
"""

import json
import pathlib
import sys

import jax
import on_devices

from jaxdistill.phases import joint
from jaxdistill.training import loop
from jaxdistill.training.distributed import sharding


def devices_of_odd_batches() -> float:
  """Trains with batches of 15 images; returns how many devices took part."""
  stream = on_devices.RECIPE.stream._replace(batch_size=15)
  recipe = on_devices.RECIPE._replace(stream=stream, epochs=1)
  (cost,) = loop.fit(
    joint.supervised(recipe), on_devices.carry(), on_devices.DATA
  ).costs
  return cost.device_seconds / (cost.seconds - cost.compile_seconds)


def main(folder: pathlib.Path) -> None:
  on_devices.save(folder, 'kd', on_devices.fit('kd'))
  meshes = {
    'even': sharding.mesh_of_batches([16, 2]),
    'odd': sharding.mesh_of_batches([16, 15]),
    'together': sharding.mesh_of_batches([16], on_one=True),
    'chosen': sharding.mesh_of_batches([15], devices=jax.devices()[:1]),
  }
  text = on_devices.program('supervised')
  numbers = {
    'calls': text.count('custom_call_target="__onednn$convolution"'),
    'all-reduces': len(on_devices.all_reduces(text)),
    'all-gathers': text.count(' all-gather('),
    'meshes': {name: mesh.size for name, mesh in meshes.items()},
    'odd batches': devices_of_odd_batches(),
  }
  (folder / 'numbers.json').write_text(json.dumps(numbers))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
