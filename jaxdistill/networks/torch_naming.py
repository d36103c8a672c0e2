"""What the tables of PyTorch names are written with."""

from collections.abc import Callable, Iterator, Mapping
import re

from jaxdistill.types import Network, Stage

# Stage -> {part of the stage: name}; see `torch_names`.
Names = dict[str, dict[str, str]]
# Naming -> how it names the tensors of a network.
Namings = Mapping[str, Callable[[Network], Names]]


def blocks(network: Network) -> Iterator[tuple[Stage, int, int, int]]:
  """(stage, group, place in its group, place among all), groups from 1."""
  i = 0
  for stage in network.stages:
    match = re.fullmatch(r'group(\d+)\.[a-z]+(\d+)', stage.name)
    if match:
      yield stage, int(match[1]), int(match[2]), i
      i += 1


def pair(conv: str, norm: str, part: str = '') -> dict[str, str]:
  return {f'{part}conv': conv, f'{part}norm': norm}


def numbered(prefix: str, count: int, norm: str = 'bn') -> dict[str, str]:
  """conv1, norm1, conv2, ... inside a block."""
  return {
    f'{ours}{n}': f'{prefix}{theirs}{n}'
    for n in range(1, count + 1)
    for ours, theirs in (('conv', 'conv'), ('norm', norm))
  }
