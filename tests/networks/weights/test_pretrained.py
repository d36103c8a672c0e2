"""Weights under PyTorch's names: the right ones are found, wrong ones named."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph
from jaxdistill.networks.weights import pretrained

NETWORK = networks.NETWORKS['resnet8'](
  num_classes=3, stem_width=2, widths=(2, 3, 4)
)
EXAMPLE = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}


def load_changed(tmp_path, tensors, **changes):
  changed = {**tensors, **changes}
  kept = {k: v for k, v in changed.items() if v is not None}
  safetensors.numpy.save_file(kept, tmp_path / 'a.safetensors')
  return pretrained.load(tmp_path / 'a.safetensors', NETWORK, EXAMPLE)


def test_wrong_tensors_are_named_in_one_line(tmp_path, tensors):
  with pytest.raises(UsageError) as missing:
    load_changed(tmp_path, tensors, **{'layer2.0.conv1.weight': None})
  assert "lacks tensor 'layer2.0.conv1.weight'" in str(missing.value)
  with pytest.raises(UsageError) as extra:
    load_changed(tmp_path, tensors, dist_token=np.zeros(3, np.float32))
  assert "extra tensor 'dist_token'" in str(extra.value)
  with pytest.raises(UsageError) as shape:
    load_changed(tmp_path, tensors, **{'fc.weight': np.zeros((9, 4))})
  assert "expected shape (3, 4) for tensor 'fc.weight'" in str(shape.value)
  assert 'got (9, 4)' in str(shape.value)
  for error in (missing, extra, shape):
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'wrong', 'right'),
  [
    ('fc.weight', (1, 12), (3, 4)),
    ('fc.weight', (3, 4, 1, 1), (3, 4)),
    ('fc.weight', (12,), (3, 4)),
    ('fc.bias', (3, 1), (3,)),
    # These have as many numbers, in another order.
    ('layer2.0.conv1.weight', (3, 2, 9, 1), (3, 2, 3, 3)),
    ('layer2.0.conv1.weight', (2, 3, 3, 3), (3, 2, 3, 3)),
    ('layer2.0.conv1.weight', (3, 18), (3, 2, 3, 3)),
  ],
)
def test_every_wrong_shape_is_named(tmp_path, tensors, name, wrong, right):
  with pytest.raises(UsageError) as error:
    load_changed(tmp_path, tensors, **{name: np.zeros(wrong, np.float32)})
  assert f'expected shape {right} for tensor {name!r}' in str(error.value)
  assert f'got {wrong}' in str(error.value)


@pytest.mark.parametrize(
  'prefix',
  [
    *('_orig_mod.', 'model.', 'base.', 'backbone.', 'module.', 'net.0.'),
    *('module.module.', 'module.student.', '_orig_mod.module.model.'),
  ],
)
def test_a_prefix_that_all_names_share_is_left_out(
  tmp_path, model, tensors, prefix
):
  prefixed = {f'{prefix}{name}': tensor for name, tensor in tensors.items()}
  prefixed['n_averaged'] = np.array(5)  # of torch.optim.swa_utils
  path = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file(prefixed, path)
  variables = pretrained.load(path, NETWORK, EXAMPLE)
  jax.tree.map(np.testing.assert_array_equal, variables, model.variables)


def test_the_first_missing_and_the_first_extra_tensor_are_named(
  tmp_path, tensors
):
  half = {f'encoder.{k}' if 'layer1' in k else k: v for k, v in tensors.items()}
  safetensors.numpy.save_file(half, tmp_path / 'a.safetensors')
  with pytest.raises(UsageError) as error:
    pretrained.load(tmp_path / 'a.safetensors', NETWORK, EXAMPLE)
  line = str(error.value)
  assert "lacks tensor 'layer1.0.bn1.bias' of shape (2,) and " in line
  assert "extra tensor 'encoder.layer1.0.bn1.bias' of shape (2,) and " in line
  assert '\n' not in line


def test_a_tensor_under_two_spellings_is_refused(tmp_path, tensors):
  twice = {'module.fc.bias': tensors['fc.bias'] + 1}
  with pytest.raises(UsageError, match=r"'fc\.bias' twice"):
    load_changed(tmp_path, tensors, **twice)


def test_timm_names_fit_only_a_vgg_with_last_maps_of_seven():
  network = networks.NETWORKS['imagenet_vgg'](
    11, num_classes=3, width=1 / 64, hidden_width=4
  )

  def exported(size):
    image = {'image': jax.ShapeDtypeStruct((1, size, size, 3), np.float32)}
    shapes = graph.variable_shapes(network, image)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    return pretrained.to_torch(Model(network, zeros), 'timm')

  assert exported(224)['pre_logits.fc1.weight'].shape == (4, 8, 7, 7)
  for size in (64, 448):
    with pytest.raises(UsageError, match=r"'pre_logits\.fc1\.weight'.* 7x7"):
      exported(size)


def test_networks_and_namings_that_are_unknown_are_usage_errors(model):
  with pytest.raises(UsageError, match='unknown naming'):
    pretrained.to_torch(model, 'tensorflow')
  plain = networks.from_functions(lambda *_: {}, lambda *_: ({}, {}))
  with pytest.raises(UsageError, match='whose PyTorch names are known'):
    pretrained.to_torch(Model(plain, {'params': {}}))


def test_older_spellings_are_understood():
  respelled = pretrained._respelled(
    'a.pth',
    dict.fromkeys(
      (
        'module.features.denseblock1.denselayer2.norm.1.weight',
        'encoder.layers.encoder_layer_0.mlp.linear_2.bias',
        'vision_model.encoder.layers.0.layer_norm1.bias',
      )
    ),
  )
  assert list(respelled) == [
    'features.denseblock1.denselayer2.norm1.weight',
    'encoder.layers.encoder_layer_0.mlp.3.bias',
    'encoder.layers.0.layer_norm1.bias',
  ]


def test_tensors_that_are_no_part_of_the_network_are_left_out():
  kept = pretrained._without_prefix(
    dict.fromkeys(
      (
        *('logit_scale', 'text_model.final.bias', 'visual_projection.weight'),
        *('n_averaged', 'vision_model.embeddings.position_ids'),
        *('vit.embeddings.mask_token', 'vit.pooler.dense.weight'),
        *('bn1.num_batches_tracked', 'vision_model.conv.weight'),
        'vision_model.head.probe',
      )
    )
  )
  assert list(kept) == ['conv.weight', 'head.probe']
