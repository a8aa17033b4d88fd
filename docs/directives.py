"""
Directives of this documentation.

``file``: a file that is shown, and written to the page's folder when the examples run.
``console``: shell commands after ``$`` that are shown, and run and compared like doctests.
``with-broker``: either, with RabbitMQ: only shown here, and run by ``tests/rabbitmq/test_docs.py``.
``command-help``: the help of a command, as it is.
``fields``: the table of a configuration class: its fields, bounds, defaults and meanings.
"""

import importlib
import inspect
import re
import textwrap
from typing import ClassVar

import attrs
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.directives.code import container_wrapper
from sphinx.util.docutils import SphinxDirective

from wippy_queue.errors import ConfigError
from wippy_queue.fields import CHECK, FieldError

LANGUAGES = {
    ".Dockerfile": "docker",
    ".jsonl": "json",
    ".py": "python",
    ".service": "ini",
    ".txt": "text",
    ".yaml": "yaml",
}


def hidden_example(directive, code):
    """Return a node that the doctest builder runs and nobody sees."""
    node = nodes.comment(code, code, testnodetype="doctest", groups=["default"], options={})
    node["language"] = "pycon"
    directive.set_source_info(node)
    return node


def interactive(code):
    """Return code as it is typed into Python's prompt."""
    first, *rest = code.split("\n")
    return "\n".join([f">>> {first}", *(f"... {line}".rstrip() for line in rest)]) + "\n"


class File(SphinxDirective):
    """A file: ``{file} app.yaml``."""

    has_content = True
    required_arguments = 1

    def run(self):
        path, text = self.arguments[0], "\n".join(self.content) + "\n"
        shown = nodes.literal_block(text, text.rstrip("\n"))
        shown["language"] = LANGUAGES["." + path.rpartition(".")[2]]
        self.set_source_info(shown)
        code = interactive(f"page.write({path!r}, {text!r})")
        return [container_wrapper(self, shown, path), hidden_example(self, code)]


class Console(SphinxDirective):
    """Shell commands, each after ``$``, with what they print below."""

    has_content = True

    def run(self):
        text = "\n".join(self.content)
        shown = nodes.literal_block(text, text)
        shown["language"] = "console"
        self.set_source_info(shown)
        code = ""
        for line in self.content:
            if line.startswith("$ "):
                code += interactive(f"page.run_shell({line.removeprefix('$ ')!r})")
            else:
                code += f"{line or '<BLANKLINE>'}\n"
        return [shown, hidden_example(self, code)]


class WithBroker(SphinxDirective):
    """A console or an interactive session that needs RabbitMQ, which a build does not have."""

    has_content = True

    def run(self):
        text = "\n".join(self.content)
        shown = nodes.literal_block(text, text)
        shown["language"] = "pycon" if text.startswith(">>> ") else "console"
        self.set_source_info(shown)
        return [shown]


class CommandHelp(SphinxDirective):
    """The help of a command: ``{command-help} run``, ``{command-help} dead-letters list``."""

    optional_arguments = 2

    def run(self):
        from click.testing import CliRunner

        from wippy_queue.cli import cli

        result = CliRunner().invoke(
            cli, [*self.arguments, "--help"], prog_name="wippy-queue", terminal_width=90
        )
        text = result.output.rstrip("\n")
        return [nodes.literal_block(text, text, language="text")]


class Fields(SphinxDirective):
    """
    The fields of an attrs class: ``{fields} wippy_queue.retry.RetryPolicy``.

    Options: ``required`` names fields that YAML must have although code need not; ``skip``
    names those that YAML does not have; ``defaults`` has a line ``field: text`` for each
    default that cannot be shown by its value.
    """

    required_arguments = 1
    option_spec: ClassVar = dict.fromkeys(("required", "skip", "defaults"), directives.unchanged)

    def run(self):
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        required, skipped = (self.options.get(each, "").split() for each in ("required", "skip"))
        defaults = dict(
            line.strip(" |").split(": ", 1)
            for line in self.options.get("defaults", "").split("\n")
            if line.strip(" |")
        )
        meanings = meanings_of(cls)
        lines = ["| field | takes | default | meaning |", "|---|---|---|---|"]
        for field in attrs.fields(cls):
            if field.name in skipped:
                continue
            default = defaults.pop(field.name, None)
            if default is None:
                default = "required" if field.name in required else default_of(field)
            cells = (f"`{field.name}`", takes(field), default, meanings[field.name])
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        assert not defaults, f"no such fields: {defaults}"
        node = nodes.container()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), 0, node)
        return node.children


def meanings_of(cls):
    """Return the descriptions in the section ``Attributes`` of a docstring, by name."""
    section = inspect.getdoc(cls).partition("Attributes:\n")[2]
    section = textwrap.dedent(re.split(r"\n(?=\S)", section)[0])
    entries = re.findall(r"^(\w+): ((?:.|\n(?=\s|$))*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def takes(field):
    """Return what a field takes, as its check says."""
    check = field.metadata.get(CHECK)
    if check is None:
        kind = str(field.type)
        return "a list of IDs" if "tuple" in kind else "an ID" if "EntryId" in kind else "a mapping"
    try:
        check(object())
    except ConfigError:
        expected = "a mapping"
    except FieldError as error:
        expected = re.sub(r"a duration \(.*\)", "a [duration](#durations)", error.expected)
    if field.default is not None:
        try:
            check(None)
        except (ConfigError, FieldError):
            pass
        else:
            expected += ", or `null`"
    return expected


def default_of(field):
    """Return a default as YAML spells it."""
    value = field.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, attrs.Factory):
        return "none"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and "duration" in takes(field):
        return f"`{value:g}s`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def link_instead_of_fields(app, what, name, obj, options, lines):
    """Leave the fields of configuration to the one page that describes them."""
    if name not in app.config.configuration_classes or "Attributes:" not in lines:
        return
    start = lines.index("Attributes:")
    after = [i for i in range(start + 1, len(lines)) if lines[i] and not lines[i][0].isspace()]
    end = after[0] if after else len(lines)
    lines[start:end] = ["Its fields are those of the :doc:`configuration`.", ""]


def setup(app):
    app.add_directive("file", File)
    app.add_directive("console", Console)
    app.add_directive("with-broker", WithBroker)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("fields", Fields)
    app.add_config_value("configuration_classes", (), "env")
    # Before napoleon, which comes at 500.
    app.connect("autodoc-process-docstring", link_instead_of_fields, priority=400)
    return {"version": "1", "parallel_read_safe": True}
