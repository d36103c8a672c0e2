"""Makes the fixture of RoIAlign: what PyTorch reads from a pyramid.

  python tests/networks/make_box_fixtures.py

It needs torch and torchvision. The functions are torchvision's own ones in
Python: `LevelMapper`, which chooses the level of a box, and `_roi_align`, with
half-pixel centres, as Detectron2 calls it. It writes box_fixtures/roi_align.npz
with four maps, boxes (top, left, bottom, right) and what is read for each box.
"""

import importlib
import pathlib

import numpy as np
import torch

try:
  import torchvision
except RuntimeError:
  # The operators of torchvision were compiled for another build of PyTorch.
  # They are not called here; they only have to be declared.
  library = torch.library.Library('torchvision', 'DEF')
  for operator in ('nms', 'qnms'):
    library.define(
      f'{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor'
    )
  import torchvision

# The package has a function of the same name.
roi_align = importlib.import_module('torchvision.ops.roi_align')
HERE = pathlib.Path(__file__).parent / 'box_fixtures'
HEIGHT, WIDTH, STRIDE, CANONICAL = 64, 96, 4, 28


def random_boxes(rng):
  """Boxes of all sizes, at the border, outside of it, and without an area."""
  corner = rng.uniform(-4, (HEIGHT - 4, WIDTH - 4), (24, 2))
  side = np.exp(rng.uniform(np.log(2), np.log(120), (24, 2)))
  boxes = np.concatenate([corner, corner + side], axis=1)
  boxes[0] = 0, 0, HEIGHT, WIDTH
  boxes[1] = 0, 0, 0, 0
  boxes[2] = HEIGHT - 3, WIDTH - 3, HEIGHT, WIDTH
  boxes[3] = 8, 8, 8 + CANONICAL, 8 + CANONICAL  # exactly the canonical side
  return boxes.astype(np.float32)


def main():
  rng = np.random.default_rng(0)
  maps = [
    rng.normal(size=(HEIGHT // s, WIDTH // s, 2)).astype(np.float32)
    for s in (STRIDE * 2**i for i in range(4))
  ]
  boxes = random_boxes(rng)
  torch_boxes = torch.from_numpy(boxes[:, [1, 0, 3, 2]])
  mapper = torchvision.ops.poolers.LevelMapper(
    2, 5, canonical_scale=CANONICAL, canonical_level=4
  )
  levels = mapper([torch_boxes]).numpy()
  expected = np.zeros((len(boxes), 7, 7, 2), np.float32)
  rows = torch.cat([torch.zeros(len(boxes), 1), torch_boxes], dim=1)
  for level, x in enumerate(maps):
    read = roi_align._roi_align(
      torch.from_numpy(x).permute(2, 0, 1)[None],
      rows,
      1 / (STRIDE * 2**level),
      7,
      7,
      2,
      True,
    )
    is_here = levels == level
    expected[is_here] = read.permute(0, 2, 3, 1).numpy()[is_here]
  np.savez_compressed(
    HERE / 'roi_align.npz',
    boxes=boxes,
    levels=levels,
    expected=expected,
    **{f'map{i}': x for i, x in enumerate(maps)},
  )


if __name__ == '__main__':
  main()
