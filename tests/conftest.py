"""Settings of the whole suite; they must come before jax is imported."""

import os

# Compiling takes most of the time: a second run finds the programs there.
_CACHE = os.path.expanduser('~/.cache/jaxdistill-tests')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _CACHE)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
