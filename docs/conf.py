"""Settings of the documentation build."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "wippy_queue"
author = "The wippy_queue authors"
copyright = f"2026, {author}"
version = release = installed_version("wippy-queue")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "directives",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"wippy_queue {release}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Names the rule that a docstring follows.
napoleon_custom_sections = ["Source"]

# Their fields stand on the page of the configuration alone.
configuration_classes = (
    "wippy_queue.Backoff",
    "wippy_queue.QueueConfig",
    "wippy_queue.RetryPolicy",
)

# Every page runs in a folder of its own and leaves no thread behind.
doctest_global_setup = "import page; page.set_up()"
doctest_global_cleanup = "page.tear_down()"
