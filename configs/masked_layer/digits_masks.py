"""MLD on digits: is it the mask that helps?

  jaxdistill --config=configs/masked_layer/digits_masks.py:SCHEME

The argument after the colon is the scheme of the student's initial weights, one
of the keys of `SCHEMES`.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: a ResNet-14 teaches a ResNet-8, and both see 1,000 images. The masks
learn until their loss is flat, with an alpha of 0.003. Then the layers learn
for 8 epochs, and the whole student for 8 more. The rows differ only in the
distance of the layers: with the learned masks ('masked l1'), without masks
('l1', 'l2'), with the values of the learned masks in other places ('shuffled'),
with 1 - M ('inverted'), and with masks that learned from a new random student
in each step ('redrawn'). If the learned mask helps, 'masked l1' must be better
than 'l1', and 'shuffled' and 'inverted' must not be.

Hardware and time: two CPU cores, about 30 seconds a run. Nothing is downloaded.

Test accuracy over three seeds from Xavier's weights, after Label Refinery: with
the learned masks 97.99, L1 97.82, L2 98.38. RESULTS.md has all rows.
"""

SCHEMES = {
  'xavier': {'name': 'xavier_uniform'},
  'normal_1_0': {'name': 'normal', 'mean': 1.0, 'std': 0.0},
  'normal_1_1': {'name': 'normal', 'mean': 1.0, 'std': 1.0},
}
ARGUMENTS = tuple(SCHEMES)
LARS = {'optimizer': {'name': 'lars', 'trust': 0.2}}


def get_config(scheme='xavier'):
  """Returns six rows that differ in the distance of the layers."""
  small = {'widths': (8, 16, 32), 'stem_width': 8}

  def mld(redrawn=False, **layers):
    return {
      'name': 'masked_layer',
      # With equal kernels, only breakpoints at layers tell filters apart.
      'breakpoints': 'layers' if scheme == 'normal_1_0' else 'blocks',
      'masks': {'alpha': 3e-3, 'redrawn': redrawn},
      'layers': {'epochs': 8, 'statistics_steps': 20, **layers},
      'epochs': 8,
      **LARS,
    }

  return {
    'data': {'name': 'digits'},
    'teacher': {'name': 'resnet14', **small, 'training': {'epochs': 20}},
    'student': {'name': 'resnet8', **small},
    'initial': SCHEMES[scheme],
    'batch_size': 50,
    'epochs': 16,
    'evaluate_every': 8,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'masked l1': mld(),
      'l1': mld(distance='l1'),
      'l2': mld(distance='l2'),
      'shuffled': mld(masks='shuffled'),
      'inverted': mld(masks='inverted'),
      'redrawn': mld(redrawn=True),
    },
  }
