"""Time and memory of every loss with its gradient with respect to the student.

The features are those of ResNet-32x4 and ResNet-8x4 on 32 x 32 images, which
have the same shapes. If torch is installed, each loss is compared with the same
formula in plain PyTorch; the two are measured alternately. The script prints
medians as a Markdown table.

  python benchmarks/losses.py --repeats 20 --only relational
"""

import argparse
from collections.abc import Callable, Iterator
import functools
import itertools
import os
import statistics
import time
from typing import Any, NamedTuple

# Otherwise JAX would leave no memory for PyTorch on the same device.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import losses

try:
  import torch
  from torch.nn import functional
except ImportError:
  torch = None

NUM_CLASSES, NUM_DATA, NUM_NEGATIVES, DIM = 100, 50_000, 16_384, 128
MAPS = ((32, 32, 64), (16, 16, 128), (8, 8, 256))
HINT, LAST, POOLED, LOGITS = MAPS[1:2], MAPS[2:], ((256,),), ((NUM_CLASSES,),)
EMBEDDING, REGRESSION = ((DIM,),), ((256,), (NUM_CLASSES,))
CHANNELS = tuple(shape[-1] for shape in MAPS)


class Row(NamedTuple):
  """One loss.

  Attributes:
    shapes: the shapes of the features, without the batch axis.
    jax_loss: the library's loss, a function of two tuples of features.
    torch_loss: the same in plain PyTorch.
  """

  shapes: tuple[tuple[int, ...], ...]
  jax_loss: Callable[[Any, Any], jax.Array]
  torch_loss: Callable[[Any, Any], Any]


def over_pairs(loss: Callable, *extra: Any, **choices: Any) -> Callable:
  """Sums a loss over pairs; each of `extra` has an entry for every pair."""

  def total(student, teacher):
    rows = zip(student, teacher, *extra)
    return sum(jnp.mean(loss(*row, **choices)) for row in rows)

  return total


def torch_over_pairs(loss: Callable) -> Callable:
  """Sums a PyTorch function of (student, teacher, index of the pair)."""

  def total(student, teacher):
    pairs = enumerate(zip(student, teacher))
    return sum(loss(s, t, i) for i, (s, t) in pairs)

  return total


def labels(batch: int) -> np.ndarray:
  return np.arange(batch) % NUM_CLASSES


# In the PyTorch functions, the channels come second, and `_` is the index of
# the pair.
def soft_targets(s, t, _):
  log_q, p = functional.log_softmax(s / 4, 1), functional.softmax(t / 4, 1)
  return 16 * functional.kl_div(log_q, p, reduction='batchmean')


def cross_entropy(temperature, s, t, _):
  p = functional.softmax(t / temperature, 1)
  return -(p * functional.log_softmax(s / temperature, 1)).sum(1).mean()


def decoupled(s, t, _):
  label = torch.as_tensor(labels(len(s)), device=s.device)[:, None]
  mask = torch.zeros_like(s).scatter_(1, label, 1)

  def pair(p):
    target = (p * mask).sum(1)
    return torch.stack([target, 1 - target], 1)

  q, p = pair(functional.softmax(s / 4, 1)), pair(functional.softmax(t / 4, 1))
  target = functional.kl_div(q.log(), p, reduction='batchmean')
  q = functional.log_softmax(s / 4 - 1000 * mask, 1)
  p = functional.softmax(t / 4 - 1000 * mask, 1)
  return 16 * (target + 8 * functional.kl_div(q, p, reduction='batchmean'))


def dist(s, t, _):
  q, p = functional.softmax(s, 1), functional.softmax(t, 1)

  def unlike(q, p):
    q, p = q - q.mean(1, keepdim=True), p - p.mean(1, keepdim=True)
    return 1 - ((q * p).sum(1) / (q.norm(dim=1) * p.norm(dim=1) + 1e-8)).mean()

  return unlike(q, p) + unlike(q.T, p.T)


def mean_square(s, t, _):
  return functional.mse_loss(s, t)


def normalized_l1(s, t, _):
  s, t = functional.normalize(s.flatten(1)), functional.normalize(t.flatten(1))
  return (s - t).abs().mean()


def masked_l1(s, t, _):
  weight = 1 - functional.relu(torch.full_like(s[0], 0.5))
  return (weight * (t - s)).abs().mean()


def hierarchical(s, t, _):
  loss, weight, total = functional.mse_loss(s, t), 1.0, 1.0
  for size in (4, 2, 1):
    weight /= 2
    total += weight
    pooled = (functional.adaptive_avg_pool2d(x, size) for x in (s, t))
    loss = loss + weight * functional.mse_loss(*pooled)
  return loss / total


def variational(s, t, _):
  raw = torch.full((1, s.shape[1], 1, 1), 5.0, device=s.device)
  variance = functional.softplus(raw) + 1e-5
  return 0.5 * ((s - t) ** 2 / variance + variance.log()).mean()


def attention(x):
  return functional.normalize(x.pow(2).mean(1).flatten(1))


def attention_transfer(s, t, _):
  return (attention(s) - attention(t)).pow(2).mean()


def selectivity(s, t, _):
  s = functional.normalize(s.flatten(2), dim=2)
  t = functional.normalize(t.flatten(2), dim=2)

  def kernel(x, y):
    return torch.bmm(x, y.transpose(1, 2)).pow(2).mean()

  return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def boundary(s, t, _):
  on, off = (s <= 1) & (t > 0), (s > -1) & (t <= 0)
  return ((s + 1) ** 2 * off + (s - 1) ** 2 * on).sum() / len(s)


def margin_relu(s, t, _):
  t = t.clamp(min=-0.5)
  return ((s - t) ** 2 * ((s > t) | (t > 0))).sum() / len(s)


def similarity(s, t, _):
  s, t = s.flatten(1), t.flatten(1)
  s, t = functional.normalize(s @ s.T), functional.normalize(t @ t.T)
  return (s - t).pow(2).sum() / len(s) ** 2


def distances(x):
  square = x.pow(2).sum(1)
  d = square[:, None] + square[None] - 2 * x @ x.T
  d = d.clamp(min=1e-12).sqrt()
  d = d * (1 - torch.eye(len(x), device=x.device))
  return d / d[d > 0].mean()


def relational_distance(s, t, _):
  return functional.smooth_l1_loss(distances(s), distances(t))


def angles(x):
  e = functional.normalize(x[None] - x[:, None], dim=2)
  return torch.bmm(e, e.transpose(1, 2))


def relational_angle(s, t, _):
  return functional.smooth_l1_loss(angles(s), angles(t))


def probabilities(x):
  x = functional.normalize(x)
  p = (x @ x.T + 1) / 2
  return p / p.sum(1, keepdim=True)


def probabilistic(s, t, _):
  s, t = probabilities(s), probabilities(t)
  return (t * ((t + 1e-7) / (s + 1e-7)).log()).mean()


def congruence(s, t, _):
  error = (s - t).abs()
  return (error[:-1] * error[1:]).sum(1).mean()


def flow(student, teacher):
  def matrices(maps):
    for x, y in itertools.pairwise(maps):
      x = functional.adaptive_avg_pool2d(x, y.shape[2:])
      x, y = x.flatten(2), y.flatten(2)
      yield torch.bmm(x, y.transpose(1, 2)) / x.shape[2]

  pairs = zip(matrices(student), matrices(teacher))
  return sum((g_s - g_t).pow(2).mean() for g_s, g_t in pairs)


def noise_contrast(u):
  """Takes normalised scores; the first of each row is the positive one."""
  noise = (u.shape[1] - 1) / NUM_DATA
  loss = (u[:, 0] / (u[:, 0] + noise)).log().sum()
  return -(loss + (noise / (u[:, 1:] + noise)).log().sum()) / len(u)


def contrast_in_batch(s, t, _):
  s, t = functional.normalize(s), functional.normalize(t)
  scores = (s @ t.T / 0.07).exp()
  batch = len(s)
  others = ~torch.eye(batch, dtype=torch.bool, device=s.device)
  u = scores / (NUM_DATA * scores.mean().detach())
  loss = 0.0
  for x in (u, u.T):
    rest = x[others].view(batch, batch - 1)
    loss = loss + noise_contrast(torch.cat([x.diag()[:, None], rest], 1))
  return loss


def contrast_with_memory(batch: int) -> tuple[Callable, Callable]:
  """Makes both losses on one bank: JAX picks scores, PyTorch gathers rows."""
  bank = losses.init_memory_bank(jax.random.key(0), NUM_DATA, dim=DIM)
  bank = bank._replace(
    student_log_mean=jnp.array(0.5), teacher_log_mean=jnp.array(0.5)
  )
  table = losses.negative_table(labels(NUM_DATA), num_negatives=NUM_NEGATIVES)
  negatives = losses.sample_negatives(
    jax.random.key(1), table, jnp.asarray(labels(batch))
  )
  index = jnp.arange(batch)

  def jax_loss(student, teacher):
    loss, _ = losses.memory_contrastive_loss(
      student[0], teacher[0], bank, index, negatives
    )
    return jnp.mean(loss)

  if torch is None:
    return jax_loss, jax_loss
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  memories = [torch.tensor(np.array(x), device=device) for x in bank[:2]]
  rows = np.concatenate([index[:, None], negatives], 1)
  rows = torch.tensor(rows.astype(np.int64), device=device)

  def torch_loss(student, teacher):
    loss = 0.0
    for x, memory in zip((student[0], teacher[0]), memories[::-1]):
      x = functional.normalize(x)
      picked = memory[rows.flatten()].view(batch, -1, DIM)
      scores = (torch.bmm(picked, x[:, :, None])[..., 0] / 0.07).exp()
      loss = loss + noise_contrast(scores / (NUM_DATA * np.exp(0.5)))
    return loss

  return jax_loss, torch_loss


def rows_by_name(batch: int) -> dict[str, Row]:
  """Returns the row of every loss; None stands for the loss of that name."""
  label = jnp.asarray(labels(batch))
  masks = [jnp.full(shape, 0.5) for shape in MAPS]
  margins = [jnp.full(c, -0.5) for c in CHANNELS]
  variances = [jnp.full(c, 5.0) for c in CHANNELS]
  rows = {
    'soft_target_loss': (LOGITS, None, soft_targets),
    'tempered_cross_entropy': (
      LOGITS,
      None,
      functools.partial(cross_entropy, 2.5),
    ),
    'refinery_loss': (LOGITS, None, functools.partial(cross_entropy, 1.0)),
    'logit_squared_error': (
      LOGITS,
      None,
      lambda s, t, _: 0.5 * (s - t).pow(2).sum(1).mean(),
    ),
    'decoupled_kd_loss': (
      LOGITS,
      over_pairs(losses.decoupled_kd_loss, [label]),
      decoupled,
    ),
    'dist_loss': (LOGITS, None, dist),
    'squared_distance': (MAPS, None, mean_square),
    'hint_loss': (HINT, None, mean_square),
    'normalized_l1_loss': (LAST, None, normalized_l1),
    'masked_l1_loss': (
      MAPS,
      over_pairs(losses.masked_l1_loss, masks),
      masked_l1,
    ),
    'hierarchical_context_loss': (MAPS, None, hierarchical),
    'variational_information_loss': (
      MAPS,
      over_pairs(losses.variational_information_loss, variances),
      variational,
    ),
    'attention_transfer_loss': (MAPS, None, attention_transfer),
    'neuron_selectivity_loss': (MAPS, None, selectivity),
    'factor_transfer_loss': (LAST, None, normalized_l1),
    'activation_boundary_loss': (MAPS, None, boundary),
    'margin_relu_loss': (
      MAPS,
      over_pairs(losses.margin_relu_loss, margins),
      margin_relu,
    ),
    'similarity_preserving_loss': (LAST, None, similarity),
    'relational_distance_loss': (POOLED, None, relational_distance),
    'relational_angle_loss': (POOLED, None, relational_angle),
    'probabilistic_transfer_loss': (POOLED, None, probabilistic),
    'correlation_congruence_loss': (EMBEDDING, None, congruence),
    'contrastive_loss': (EMBEDDING, None, contrast_in_batch),
  }
  table = {
    name: Row(
      shapes,
      jax_loss or over_pairs(getattr(losses, name)),
      torch_over_pairs(torch_loss),
    )
    for name, (shapes, jax_loss, torch_loss) in rows.items()
  }
  table['softmax_regression_loss'] = Row(
    REGRESSION,
    lambda s, t: jnp.mean(
      losses.softmax_regression_loss(s[0], t[0], s[1], t[1])
    ),
    torch_over_pairs(mean_square),
  )
  table['flow_loss'] = Row(
    MAPS, lambda s, t: jnp.mean(losses.flow_loss(s, t)), flow
  )
  table['memory_contrastive_loss'] = Row(
    EMBEDDING, *contrast_with_memory(batch)
  )
  return table


def measure(row: Row, batch: int, repeats: int) -> dict[str, float]:
  """Returns the median seconds, the bytes and the values of both losses."""
  rng = np.random.default_rng(0)
  student, teacher = (
    [rng.normal(size=(batch, *s)).astype(np.float32) for s in row.shapes]
    for _ in range(2)
  )
  program = jax.jit(jax.value_and_grad(row.jax_loss))
  compiled = program.lower(student, teacher).compile()
  arrays = jax.device_put((student, teacher))
  result = {
    'jax_bytes': compiled.memory_analysis().temp_size_in_bytes,
    'jax_value': float(compiled(*arrays)[0]),
  }
  calls = {'jax': lambda: jax.block_until_ready(compiled(*arrays))}
  if torch is not None:
    call, value, size = torch_call(row, student, teacher)
    result |= {'torch_value': value, 'torch_bytes': size}
    calls['torch'] = call
  times: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(repeats):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      times[name].append(time.perf_counter() - start)
  return result | {name: statistics.median(t) for name, t in times.items()}


def torch_call(
  row: Row, student: list[np.ndarray], teacher: list[np.ndarray]
) -> tuple[Callable[[], Any], float, float]:
  """Returns a call of the PyTorch loss, its value and its peak GPU memory."""
  on_gpu = torch.cuda.is_available()

  def tensors(arrays, trained):
    for x in arrays:
      x = np.moveaxis(x, -1, 1).copy()
      x = torch.tensor(x, device='cuda' if on_gpu else 'cpu')
      yield x.requires_grad_(trained)

  inputs = tuple(tensors(student, True)), tuple(tensors(teacher, False))

  def call():
    loss = row.torch_loss(*inputs)
    torch.autograd.grad(loss, inputs[0])
    if on_gpu:
      torch.cuda.synchronize()
    return loss

  value, size = call().item(), float('nan')
  if on_gpu:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    size = torch.cuda.max_memory_allocated() - before
  return call, value, size


def lines(table: dict[str, Row], batch: int, repeats: int) -> Iterator[str]:
  """Yields the Markdown table, line by line."""
  columns = ['loss', 'ms', 'MiB']
  if torch is not None:
    columns += ['PyTorch ms', 'PyTorch MiB', 'times faster', 'value ratio']
  yield f'| {" | ".join(columns)} |'
  yield '|---' * len(columns) + '|'
  for name, row in table.items():
    m = measure(row, batch, repeats)
    cells = [f'{1e3 * m["jax"]:.3f}', f'{m["jax_bytes"] / 2**20:.1f}']
    if torch is not None:
      size = m['torch_bytes'] / 2**20
      cells += [
        f'{1e3 * m["torch"]:.3f}',
        '-' if np.isnan(size) else f'{size:.1f}',
        f'{m["torch"] / m["jax"]:.2f}',
        f'{m["jax_value"] / m["torch_value"]:.4f}',
      ]
    yield f'| {name} | {" | ".join(cells)} |'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch', type=int, default=64, help='batch size')
  parser.add_argument(
    '--repeats', type=int, default=50, help='the number of measurements'
  )
  parser.add_argument(
    '--only',
    default='',
    help='a text that the names of the losses must contain',
  )
  flags = parser.parse_args()
  table = rows_by_name(flags.batch)
  table = {k: row for k, row in table.items() if flags.only in k}
  print(f'{jax.devices()[0].device_kind}, batch {flags.batch}, float32')
  if torch is not None:
    print(f'jax {jax.__version__}, torch {torch.__version__}')
  for line in lines(table, flags.batch, flags.repeats):
    print(line, flush=True)


if __name__ == '__main__':
  main()
