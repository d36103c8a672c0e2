"""Measures the loading of images: on the device, streamed, and by PyTorch.

Batches of image files are decoded, cropped at random with padding 4, and
flipped. 'device' decodes all images once and keeps them on the device; 'stream'
decodes each batch in worker processes and augments it on the device; 'torch' is
a DataLoader that decodes and augments one image after the other, in the same
number of worker processes. Streaming and PyTorch decode the same files with
Pillow. Each engine runs in its own process. They take turns, and medians and
ratios of images per second are printed.

  python benchmarks/loading.py --torch_python=/path/to/torch/bin/python

That Python needs torch, numpy and pillow. If it has no torch, PyTorch is left
out.
"""

import argparse
import itertools
import os
import pathlib
import sys
import tempfile
import time

import engines

PADDING = 4


def write_images(folder, count, size):
  """Writes PNG files of 10 classes: smooth noise, compressible like photos."""
  import numpy as np
  import PIL.Image

  rng = np.random.default_rng(0)
  for i in range(count):
    low = rng.integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    image = np.asarray(PIL.Image.fromarray(low).resize((size, size))).astype(
      int
    )
    image = image + rng.integers(-4, 5, image.shape)
    path = pathlib.Path(folder, f'class{i % 10}')
    path.mkdir(exist_ok=True)
    image = PIL.Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    image.save(path / f'{i:06d}.png')


def jax_batches(options):
  """Returns (a function that makes a batch and waits for it, close)."""
  import jax

  from jaxdistill.data.loading import batches, streaming
  from jaxdistill.data.sources import folder
  from jaxdistill.data.transforms import augment

  stream = options.engine == 'stream'
  split = folder.folder(
    options.data, image_size=options.image_size, validation=0, stream=stream
  ).splits['train']
  if stream:
    source = streaming.StreamedBatches(
      split, options.batch, (0,), workers=options.workers
    )
  else:
    source = batches.Batches(split, options.batch, (0,))
  augmented = jax.jit(augment.crop_flip(padding=PADDING))
  steps = itertools.count()

  def run():
    step = next(steps)
    rng = jax.random.fold_in(jax.random.key(0), step)
    jax.block_until_ready(augmented(rng, source(step)))

  return run, source.close


def torch_batches(options):
  """Returns the same functions for PyTorch."""
  import numpy as np
  import PIL.Image
  import PIL.ImageOps
  import torch

  paths = sorted(pathlib.Path(options.data).glob('*/*'))
  names = sorted({path.parent.name for path in paths})
  device = 'cuda' if torch.cuda.is_available() else 'cpu'

  class Images(torch.utils.data.Dataset):
    def __len__(self):
      return len(paths)

    def __getitem__(self, i):
      image = PIL.Image.open(paths[i])
      if options.image_size is not None:
        square = (options.image_size, options.image_size)
        image.draft('RGB', (2 * square[0], 2 * square[1]))
        bilinear = PIL.Image.Resampling.BILINEAR
        image = PIL.ImageOps.fit(image.convert('RGB'), square, bilinear)
      image = torch.from_numpy(np.array(image.convert('RGB')))
      height, width, _ = image.shape
      pad = (0, 0, PADDING, PADDING, PADDING, PADDING)
      image = torch.nn.functional.pad(image, pad)
      top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
      image = image[top : top + height, left : left + width]
      if torch.rand(()) < 0.5:
        image = image.flip(1)
      return image.permute(2, 0, 1), names.index(paths[i].parent.name)

  loader = torch.utils.data.DataLoader(
    Images(),
    options.batch,
    shuffle=True,
    drop_last=True,
    num_workers=options.workers,
    persistent_workers=options.workers > 0,
    pin_memory=device == 'cuda',
  )
  forever = itertools.chain.from_iterable(itertools.repeat(loader))

  def run():
    image, label = next(forever)
    image.to(device, non_blocking=True), label.to(device)
    if device == 'cuda':
      torch.cuda.synchronize()

  return run, lambda: None


def work(options):
  """Answers each line of the input with images per second, over some steps."""
  make = torch_batches if options.engine == 'torch' else jax_batches
  run, close = make(options)
  for _ in sys.stdin:
    # Batches that were loaded ahead while other engines were measured do not
    # count: 5 per worker and 3 more for streaming, 2 per worker in PyTorch.
    for _ in range(6 * (options.workers + 1)):
      run()
    start = time.perf_counter()
    for _ in range(options.steps):
      run()
    elapsed = time.perf_counter() - start
    engines.answer(options.steps * options.batch / elapsed)
  close()


def compare(options):
  """Runs all engines in turn and prints a table."""
  arguments = [f'--{key}={getattr(options, key)}' for key in ('data', 'batch')]
  arguments += [f'--workers={options.workers}', f'--steps={options.steps}']
  if options.image_size is not None:
    arguments.append(f'--image_size={options.image_size}')
  pythons = {'device': sys.executable, 'stream': sys.executable}
  if engines.has_torch(options.torch_python):
    pythons['torch'] = options.torch_python
  running = {
    name: engines.Engine([python, __file__, f'--engine={name}', *arguments])
    for name, python in pythons.items()
  }
  medians = engines.medians(running, options.repeats, warm_up=1)
  for engine in running.values():
    engine.close()
  print(f'batch {options.batch}, {options.workers} workers')
  for name, median in medians.items():
    ratios = (f'{median / m:9.2f} x {other}' for other, m in medians.items())
    print(f'{name:8}{median:12.0f} images/s', *ratios)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--data', help='a folder with one folder per class; default: generated'
  )
  parser.add_argument('--image_size', type=int, help='resize images to it')
  parser.add_argument(
    '--images', type=int, default=10000, help='how many to generate'
  )
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
  parser.add_argument('--steps', type=int, default=50, help='per measurement')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument('--engine', help='for internal use: the engine to run')
  options = parser.parse_args()
  if options.engine:
    work(options)
  elif options.data:
    compare(options)
  else:
    with tempfile.TemporaryDirectory() as folder:
      write_images(folder, options.images, 32)
      options.data = folder
      compare(options)


if __name__ == '__main__':
  main()
