"""The documentation site: python -m sphinx -W --keep-going -b html docs docs/_build."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import jaxns  # noqa: E402

project = "jaxns"
version = release = jaxns.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "offline_math",
    "pages",
    "plain_docstrings",
    "complete",
]
exclude_patterns = ["_build", "_ext", "_figures", "_static", "jupyter_execute"]

# Notebooks are stored with their figures, and run by the test suite, as code blocks are.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

smartquotes = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["equinox", "lineax", "nemos", "optimistix", "ott"]  # of the adapters
add_module_names = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"jaxns {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
