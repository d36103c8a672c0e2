"""The commands that need no config: they print what they have done."""

import argparse
import os
import sys

from jaxdistill.study import listing

MODES = ('distill', 'report', 'predict', 'list')


def show(options: argparse.Namespace) -> int:
  """Does what a command says, prints the outcome and returns the exit code.

  Args:
    options: the options of the command line; `mode` is one of `MODES`.

  Raises:
    UsageError: there is nothing to report, no such kind of name, no student or
      image to predict with, or an argument of `distill` does not work.
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
  if options.mode == 'distill':
    return _distilled(options)
  if options.mode == 'predict':
    from jaxdistill.data.sources import class_folders
    from jaxdistill.study import predicting  # imports JAX

    lines = predicting.lines(
      options.model,
      options.image,
      options.predictions,
      options.background,
      options.annotations,
    )
    return class_folders.printable('\n'.join(lines))
  from jaxdistill.study.page import document  # imports NumPy

  return document.as_text(document.write_report(options.workdir))


def _distilled(options: argparse.Namespace) -> str:
  """Distils, and returns the table, the verdict and the files."""
  from jaxdistill.study.distilling import call  # imports JAX
  from jaxdistill.training import program_cache, signals

  program_cache.enable()
  teachers = options.teacher
  sys.path.insert(0, '')  # for names such as 'my_file:my_network'
  with signals.stop_requests() as interrupted:
    outcome = call.distill(
      options.data,
      teacher=teachers[0] if len(teachers) == 1 else teachers,
      student=options.student,
      out=options.out,
      method=options.method,
      baseline=options.baseline,
      seeds=options.seeds,
      epochs=options.epochs,
      batch_size=options.batch_size,
      image_size=options.image_size,
      labels=options.labels,
      cache_teacher=options.cache_teacher,
      cache_top_k=options.cache_top_k,
      teacher_epochs=options.teacher_epochs,
      formats=options.format or ('safetensors',),
      push_to_hub=options.push_to_hub,
      interrupted=interrupted,
    )
  return str(outcome)
