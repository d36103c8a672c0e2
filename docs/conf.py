"""Configuration of the documentation site.

sphinx-build -W --keep-going -b html docs docs/_build/html
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from docs_build import docstrings, pages  # noqa: E402

import jaxdistill  # noqa: E402

project = 'jaxdistill'
author = 'The jaxdistill authors'
copyright = author
release = jaxdistill.__version__
version = release

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx_design',
]
exclude_patterns = ['_build', '_generated/include']
# All that this writes is ignored by git and made anew by each build.
pages.write(HERE.parent, HERE)

# Dashes only: quotation marks stay as in code.
smartquotes_action = 'D'

html_theme = 'furo'
html_title = f'jaxdistill {release}'
html_static_path = ['_static']
html_css_files = ['custom.css']
html_copy_source = False
html_show_sphinx = False
html_theme_options = {'navigation_with_keys': True}

myst_enable_extensions = ['colon_fence', 'deflist', 'attrs_inline']
myst_heading_anchors = 3
# Notebooks are stored with their outputs, and the tests run them.
nb_execution_mode = 'off'
nb_ipywidgets_js = {}  # no scripts from other servers
nb_merge_streams = True

autodoc_member_order = 'alphabetical'
autodoc_typehints_format = 'short'
python_maximum_signature_line_length = 60
napoleon_numpy_docstring = False
# The attributes of a named tuple are the arguments of its constructor.
napoleon_custom_sections = [('Attributes', 'params_style')]
napoleon_use_rtype = False
add_module_names = False


def setup(app):
  """Connects the hooks that make docstrings fit for Sphinx."""
  app.connect('autodoc-process-docstring', docstrings.process, priority=400)
  app.connect('autodoc-skip-member', docstrings.skip)
