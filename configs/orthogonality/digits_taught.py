"""Orthogonality, Table 1 on a small scale, with a teacher that saw more.

  jaxdistill --config=configs/orthogonality/digits_taught.py

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: in the paper, a network teaches another one of the same kind. On digits
this gives nothing, so that here the teacher has seen 1,000 images and all other
networks see 200. Half of the filters in each block are removed. Whole networks
have 320 steps, and pruned ones 80 more. The rows are the paper's columns:
'finetuned' is not distilled, 'pre' is distilled before it is pruned, 'post'
after it, and 'pre and post' both. The paper's surplus is then

  ('pre and post' - 'finetuned') - (KIND - 'scratch')

Here, fine-tuning has the same teacher as the whole network; in the paper, the
distilled network itself teaches. alpha, T and beta were not tuned.

Hardware and time: one CPU core, 5 minutes for all rows and seeds. Nothing is
downloaded.

Test accuracy, ten seeds: teacher 98.16, scratch 92.55 ± 0.92, label 95.80 ±
0.66, feature 95.01 ± 1.15; pruned: finetuned 90.69 ± 1.57, pre and post 94.87 ±
0.83 (label) and 92.61 ± 0.91 (feature). RESULTS.md has all rows.
"""

NETWORK = {'name': 'resnet8', 'stem_width': 8, 'widths': (8, 16, 32)}
SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
LABELS = {'name': 'supervised'}
KINDS = {
  'label': {'name': 'kd', 'weight': 0.9, 'label_weight': 0.1},
  'feature': {'name': 'fd', 'weight': 500.0},
}


def pruned(method, fine_tune):
  """Returns a method, a pruning, and the method after it."""
  return {
    'name': 'pruned',
    'method': method,
    'pruning': {'name': 'filters', 'keep': 0.5},
    'fine_tune': fine_tune,
    'fine_tune_epochs': 20,
    'fine_tune_optimizer': {
      **SGD,
      'schedule': {'name': 'constant', 'rate': 0.01},
    },
  }


def get_config():
  """Returns the columns of the paper for labels and features."""
  rows = {'scratch': LABELS, 'finetuned': pruned(LABELS, LABELS)}
  for kind, method in KINDS.items():
    rows |= {
      kind: method,
      f'{kind}, pre': pruned(method, LABELS),
      f'{kind}, post': pruned(LABELS, method),
      f'{kind}, pre and post': pruned(method, method),
    }
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {**NETWORK, 'training': {'subset': 'train', 'epochs': 20}},
    'student': NETWORK,
    'subset': 'train_subset',
    'batch_size': 50,
    'epochs': 80,
    'evaluate_every': 80,
    'seeds': 10,
    'optimizer': SGD,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
