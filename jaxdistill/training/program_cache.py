"""The cache of compiled programs on disk.

The seeds of a method share their compiled programs, and so do later runs.
"""

import os

import jax

from jaxdistill.data.loading import cache


def enable() -> None:
  """Keeps compiled programs in the library's cache folder.

  Does nothing if the user has chosen another folder with
  JAX_COMPILATION_CACHE_DIR, or if the folder cannot be written.
  """
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
