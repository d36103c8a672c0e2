"""The cache of compiled programs on disk.

The seeds of a method share their compiled programs, and so do later runs.
"""

import os
import warnings

import jax

from jaxdistill.core import cpu
from jaxdistill.data.loading import cache


def enable() -> None:
  """Keeps compiled programs in the library's cache folder.

  It stays in the folder that the user has chosen with
  JAX_COMPILATION_CACHE_DIR. Nothing is kept if the folder cannot be written.
  """
  if cpu.convolutions() == 'oneDNN':
    # jaxlib cannot serialise a program with calls of oneDNN. JAX warns of it
    # after each compilation, and the user can do nothing about it.
    warnings.filterwarnings(
      'ignore', 'Error writing persistent compilation cache.*std::bad_alloc'
    )
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  folder = cache.folder()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
