"""Settings of the documentation build."""

from importlib.metadata import version as installed_version

project = "wippy_queue"
author = "The wippy_queue authors"
copyright = f"2026, {author}"
version = release = installed_version("wippy-queue")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"wippy_queue {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Names the rule that a docstring follows.
napoleon_custom_sections = ["Source"]
