"""Helpers with which the tables of PyTorch names are written."""

from collections.abc import Callable, Iterator, Mapping
import re
from typing import Any

from jaxdistill.core.types import Network, Stage

# Stage -> {part of the stage: name, or several}; see `torch_names`.
Names = dict[str, dict[str, Any]]
# Naming -> the function that names the tensors of a network.
Namings = Mapping[str, Callable[[Network], Names]]


def blocks(network: Network) -> Iterator[tuple[Stage, int, int, int]]:
  """Yields (stage, group, place in the group, place among all blocks).

  Groups and places in a group are counted from 1, places among all from 0.
  """
  i = 0
  for stage in network.stages:
    match = re.fullmatch(r'group(\d+)\.[a-z]+(\d+)', stage.name)
    if match:
      yield stage, int(match[1]), int(match[2]), i
      i += 1


def pair(conv: str, norm: str, part: str = '') -> dict[str, str]:
  """Returns the names of a convolution and its norm, the part's layers."""
  return {f'{part}conv': conv, f'{part}norm': norm}


def numbered(prefix: str, count: int, norm: str = 'bn') -> dict[str, str]:
  """Returns the names of conv1, norm1, conv2, ... inside a block."""
  return {
    f'{layer}{n}': f'{prefix}{torch_layer}{n}'
    for n in range(1, count + 1)
    for layer, torch_layer in (('conv', 'conv'), ('norm', norm))
  }
