"""Studies: from a config to results.

A study goes through these steps, one file each:

  config.py, overrides.py, settings.py: the config file and its keys.
  parse.py, nesting.py: sections become checked calls of the functions in
    registry.py.
  validate.py, sweeps.py: all that can be refused before the data are read.
  load.py: the data set and the teacher's file.
  build.py: networks, recipes and methods become a plan.
  runs.py: the rows of the plan are trained in a work directory; pieces.py:
    independent pieces of a row are trained by jobs of their own.
  results.py: what finished runs reached; report.py shows it as a table, and
    page/ as a page with verdicts and charts.
  exports.py: students become files that other programs read.
  opening.py: these files become functions of raw images again, which are
    described in predictors.py; predicting.py applies them to image files.
  distilling/: one call whose few arguments are compiled into a config.

Names are imported when they are first used, so that loading a config does not
import JAX.
"""

from typing import TYPE_CHECKING

from jaxdistill.core import lazy

if TYPE_CHECKING:
  from jaxdistill.study import config, registry, stablehlo
  from jaxdistill.study.build import plan
  from jaxdistill.study.exports import export
  from jaxdistill.study.models import initial_model
  from jaxdistill.study.option_table import FORMATS
  from jaxdistill.study.page.document import write_report
  from jaxdistill.study.pieces import run_pieces
  from jaxdistill.study.plans import Plan, Row
  from jaxdistill.study.report import table
  from jaxdistill.study.results import collect, evaluate, finished, trained
  from jaxdistill.study.runs import run

_MODULES = ('config', 'registry', 'stablehlo')
# Name -> the module that defines it.
_HOMES = {
  'FORMATS': 'jaxdistill.study.option_table',
  'Plan': 'jaxdistill.study.plans',
  'Row': 'jaxdistill.study.plans',
  'collect': 'jaxdistill.study.results',
  'evaluate': 'jaxdistill.study.results',
  'export': 'jaxdistill.study.exports',
  'finished': 'jaxdistill.study.results',
  'initial_model': 'jaxdistill.study.models',
  'plan': 'jaxdistill.study.build',
  'run': 'jaxdistill.study.runs',
  'run_pieces': 'jaxdistill.study.pieces',
  'table': 'jaxdistill.study.report',
  'trained': 'jaxdistill.study.results',
  'write_report': 'jaxdistill.study.page.document',
}

__all__ = [
  'FORMATS',
  'Plan',
  'Row',
  'collect',
  'config',
  'evaluate',
  'export',
  'finished',
  'initial_model',
  'plan',
  'registry',
  'run',
  'run_pieces',
  'stablehlo',
  'table',
  'trained',
  'write_report',
]


if not TYPE_CHECKING:  # else type checkers would accept every name
  __getattr__, __dir__ = lazy.attributes(
    __name__, __all__, _HOMES, modules=_MODULES
  )
