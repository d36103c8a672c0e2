"""The commands that need no plan: they print a report or a list of names."""

import argparse
import os
import sys

from jaxdistill.study import listing

MODES = ('report', 'list')


def show(options: argparse.Namespace) -> int:
  """Does what a command says, prints the outcome and returns the exit code.

  Args:
    options: the options of the command line; `mode` is one of `MODES`.

  Raises:
    UsageError: there is nothing to report, or no such kind of name.
  """
  text = _text(options)
  try:
    print(text, flush=True)
  except BrokenPipeError:  # the reader, such as `head`, has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return 0


def _text(options: argparse.Namespace) -> str:
  if options.mode == 'list':
    return '\n'.join(listing.names(options.kind))
  from jaxdistill.study.page import document  # imports NumPy

  return document.as_text(document.write_report(options.workdir))
