"""Makes the fixture of the parity test of RetinaNet, by plain PyTorch.

  python tests/networks/make_detector_fixture.py

It needs torch. The file box_fixtures/retinanet.npz holds random maps C3 to C5
of two images and boxes, the random weights of a narrow pyramid and head, and
what PyTorch makes of them: levels, logits, offsets, losses, and the gradients
of the losses with respect to the logits and offsets.
"""

import pathlib

import numpy as np
import plain_detector
import torch

FILE = pathlib.Path(__file__).parent / 'box_fixtures' / 'retinanet.npz'
CHANNELS, SIZES = (4, 6, 8), ((5, 7), (3, 4), (2, 2))
CLASSES, WIDTH, DEPTH, STRIDE = 3, 5, 2, 8
BOXES = ((0, 0, 30, 24), (10, 20, 38, 54), (3, 30, 12, 40))


def main():
  torch.manual_seed(0)
  pyramid = plain_detector.Pyramid(CHANNELS, WIDTH)
  head = plain_detector.Head(CLASSES, WIDTH, DEPTH)
  for parameter in (*pyramid.parameters(), *head.parameters()):
    torch.nn.init.normal_(parameter, std=0.2)
  maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES)]
  levels = pyramid(*maps)
  logits, offsets = head(*levels)
  of_anchors = plain_detector.anchors(
    [x.shape[2:] for x in levels], stride=STRIDE
  )
  boxes = torch.tensor(BOXES, dtype=torch.float32)
  labels = torch.tensor([2, 0, 1])
  content = {
    **{f'c{i + 3}': x.permute(0, 2, 3, 1) for i, x in enumerate(maps)},
    **{f'p{i + 3}': x.permute(0, 2, 3, 1) for i, x in enumerate(levels)},
    **dict(pyramid.state_dict(prefix='pyramid.')),
    **dict(head.state_dict(prefix='head.')),
    **{'logits': logits, 'offsets': offsets, 'anchors': of_anchors},
    **{'boxes': boxes, 'labels': labels},
    'giou': plain_detector.giou(boxes, boxes.roll(1, 0)),
    'focal': plain_detector.focal(logits, (logits > 0.5).float()),
  }
  for kind in ('smooth_l1', 'giou'):
    parts = [
      plain_detector.losses(*rows, of_anchors, boxes, labels, kind)
      for rows in zip(logits, offsets)
    ]
    class_loss, box_loss = (torch.stack(x) for x in zip(*parts))
    gradients = torch.autograd.grad(
      (class_loss + box_loss).sum(), (logits, offsets), retain_graph=True
    )
    content |= {f'{kind}.class_loss': class_loss, f'{kind}.box_loss': box_loss}
    content |= {
      f'{kind}.{name}': x for name, x in zip(('logits', 'offsets'), gradients)
    }
  arrays = {k: v.detach().numpy() for k, v in content.items()}
  np.savez_compressed(FILE, **arrays)
  print(f'{FILE}: {FILE.stat().st_size} bytes')


if __name__ == '__main__':
  main()
