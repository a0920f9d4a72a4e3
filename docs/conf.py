"""How the manual is built. Nothing here needs the network."""

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("OMP_NUM_THREADS", "2")

import code_pages  # noqa: E402 - found only once its folder is on the path, as the three below
import docstrings  # noqa: E402 - the same
import pages  # noqa: E402 - the same
import study_pages  # noqa: E402 - the same

from stratoscope import __version__  # noqa: E402

project = "Stratoscope"
author = "the Stratoscope developers"
project_copyright = "the Stratoscope developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "formulas",
]
exclude_patterns = ["_build", "generated/commands.md", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
# a bare name in a signature may be that of two classes
suppress_warnings = ["config.cache", "ref.python"]

smartquotes_action = "D"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# shapes such as "*batch" would be read as emphasis
napoleon_attr_annotations = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "abort_on_example_error": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1_000_000,
    "write_computation_times": False,
    "plot_gallery": True,
}

html_math_renderer = "paths"
html_theme = "furo"
html_title = f"Stratoscope {version}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e75", "color-brand-content": "#0b6e75"},
    "dark_css_variables": {"color-brand-primary": "#5fc4c9", "color-brand-content": "#5fc4c9"},
}
pygments_style = "friendly"
pygments_dark_style = "native"

warnings.filterwarnings("error", module="stratoscope")


def setup(app):
    """Write the pages that follow from the code, and let autodoc read Markdown."""
    app.connect("builder-inited", lambda app: pages.write_all(HERE))
    app.connect("builder-inited", lambda app: code_pages.write_all(HERE))
    app.connect("builder-inited", lambda app: study_pages.write_all(HERE))
    # before napoleon, which reads what is left
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)
