"""Every way in which files and texts can be wrong as a whole, or be made to hurt."""

import pytest
from config_texts import HEAD, WORKER, file_line, line, queue_line, worker_line

from wippy_queue.config import load_files, load_text
from wippy_queue.errors import ConfigError


def test_a_text_without_a_namespace():
    """A file names its namespace."""
    assert line("entries: []") == ("<yaml>:1:1: namespace: missing, and required")


def test_a_namespace_that_cannot_be_one():
    """A namespace has the characters of an ID."""
    assert line("namespace: my app\nentries: []") == (
        "<yaml>:1:12: namespace: expected a namespace (letters, digits, _ . - and /), got 'my app'"
    )


def test_a_given_namespace_that_cannot_be_one():
    """The argument is checked like the field."""
    assert line("entries: []", namespace="a:b") == (
        "namespace: expected a namespace (letters, digits, _ . - and /), got 'a:b'"
    )


def test_a_text_without_entries():
    """A file has entries, if only an empty list."""
    assert line("namespace: app") == ("<yaml>:1:1: entries: missing, and required")


def test_entries_that_are_no_list():
    """Entries come in a list."""
    assert line("namespace: app\nentries: {a: 1}") == (
        "<yaml>:2:10: entries: expected a list of entries, got a mapping"
    )


def test_a_wrong_version():
    """There is one version so far."""
    assert line("version: 2\nnamespace: app\nentries: []") == (
        "<yaml>:1:10: version: expected 1.0, got 2"
    )


def test_an_unknown_top_level_key():
    """A wrong name at the top is found where it stands."""
    assert line(HEAD + "versoin: 1.0\n") == (
        "<yaml>:8:1: versoin: unknown field; known are version, namespace, entries "
        "(did you mean version?)"
    )


def test_a_list_without_a_namespace():
    """A bare list has no place for a namespace."""
    assert line("- {name: m, kind: queue.driver.memory}") == (
        "<yaml>:1:1: a list of entries needs a namespace; write namespace: and entries: above it"
    )


def test_a_text_that_is_one_value():
    """A text has fields."""
    assert line("just words") == (
        "<yaml>:1:1: expected a mapping with namespace and entries, got 'just words'"
    )


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n...\n"])
def test_an_empty_text(text):
    """An empty file is no configuration."""
    found = line(text)
    assert found.startswith("<yaml>:1:1: ") or text.startswith("---")


def test_a_file_that_is_missing(tmp_path):
    """A missing file is named, with the nearest one."""
    (tmp_path / "app.yaml").write_text(HEAD)
    found = file_line(tmp_path / "app.yml")
    assert found == "app.yml: there is no such file (did you mean app.yaml?)"


def test_a_folder_without_an_index(tmp_path):
    """A folder is searched for ``_index.yaml`` only."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "app.yaml").write_text(HEAD)
    assert file_line(tmp_path / "sub") == (
        "sub: there is no _index.yaml in this folder, nor below it"
    )


def test_a_file_that_cannot_be_read(tmp_path):
    """What the system says of a file that it refuses is passed on."""
    (tmp_path / "app.yaml").write_text(HEAD)
    found = file_line(tmp_path / "app.yaml" / "more.yaml")
    assert found.endswith("more.yaml: cannot be read: Not a directory")


def test_a_path_with_a_nul():
    """A path that cannot be one is a problem, not a crash."""
    with pytest.raises(ConfigError, match="cannot be read: embedded null"):
        load_files("a\0b")


def test_no_path_at_all():
    """Without a file there is nothing to load."""
    with pytest.raises(ConfigError, match="no file and no folder was named"):
        load_files()


def test_a_file_that_is_not_utf8(tmp_path):
    """A wrong byte is found in its line."""
    (tmp_path / "app.yaml").write_bytes(HEAD.encode() + b"    queue_name: caf\xe9\n")
    assert file_line(tmp_path / "app.yaml") == ("app.yaml:8:20: not UTF-8: the byte 0xe9")


def test_a_syntax_error():
    """YAML that is none is reported in YAML's own words, in one line."""
    assert line("namespace: app\nentries: [\n") == (
        "<yaml>:3:1: while parsing a flow node, expected the node content, but found '<stream end>'"
    )


def test_a_bare_placeholder_in_braces():
    """The one mistake that YAML's own words do not explain is explained."""
    found = queue_line("options: {max_length: ${env:MANY}}")
    assert found.startswith("<yaml>:8:28: while parsing a flow mapping")
    assert found.endswith("; inside [ ] and { } a ${...} needs quotes")


def test_a_second_document():
    """A file is one document."""
    assert line(HEAD + "---\n" + HEAD) == (
        "<yaml>:8:1: expected a single document in the stream, but found another document"
    )


def test_a_key_given_twice():
    """Of two equal keys the second is reported, with the line of the first."""
    assert queue_line("driver: memory") == (
        "<yaml>:8:5: app:tasks: driver: given twice; the first is in line 7"
    )


def test_a_key_that_is_no_text():
    """Keys are text."""
    assert queue_line("5: x") == ("<yaml>:8:5: app:tasks: 5: expected text as a key")


def test_a_tag():
    """Tags mean objects elsewhere; here they mean nothing."""
    assert queue_line("queue_name: !!python/name:os.system x") == (
        "<yaml>:8:17: app:tasks: queue_name: the tag !!python/name:os.system is not supported"
    )


def test_a_wrong_value_that_was_merged_in():
    """A merged value is reported where it stands, under each entry that uses it."""
    text = "x-common: &common\n  concurrency: 0\n" + HEAD + WORKER + "    <<: *common\n"
    assert line(text) == ("<yaml>:2:16: app:worker: concurrency: expected 1 to 1000, got 0")


def test_aliases_that_multiply():
    """A few lines that stand for a billion values are refused early."""
    text = "x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for level in range(1, 12):
        text += f"x-{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    found = line(text + "namespace: app\nentries: *a11\n")
    assert "more than 200000 values, each use of an alias counted" in found


def test_merges_that_multiply():
    """Merged mappings are counted like any others."""
    text = "x-0: &a0 {a: 1}\n"
    for level in range(1, 12):
        text += f"x-{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n"
    found = line(text + "namespace: app\nentries: [*a11]\n")
    assert "more than 200000 values, each use of an alias counted" in found


def test_an_anchor_that_contains_itself():
    """A mapping inside of itself has no end."""
    assert queue_line("meta: &meta {self: *meta}") == (
        "<yaml>:8:11: app:tasks: meta.self: an anchor cannot contain itself"
    )


def test_a_mapping_that_merges_itself():
    """Nor has one that is merged into itself."""
    assert queue_line("meta: &meta {<<: *meta}") == (
        "<yaml>:8:11: app:tasks: meta.<<: an anchor cannot contain itself"
    )


@pytest.mark.parametrize("depth", [60, 2000])
def test_deep_nesting(depth):
    """Nesting has an end, whether YAML's parser or the loader comes to it first."""
    found = queue_line(f"meta: {'{a: ' * depth}1{'}' * depth}")
    assert found.endswith("nested more than 50 deep")


@pytest.mark.parametrize("text", ["a: \x00", "a: \x07", "\ud800", "\ufffe"])
def test_characters_that_yaml_forbids(text):
    """A forbidden character is found in its place."""
    found = line(f"namespace: app\n{text}")
    assert found.startswith("<yaml>:2:")
    assert found.endswith("is not allowed")


def test_an_escape_that_yaml_itself_fails_on():
    """An error of the parser's own code is still a ConfigError."""
    found = line('"\\U99999999"')
    assert found.startswith("<yaml>:1:1: not valid YAML: ")


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000])
def test_a_number_without_end(number):
    """A number of thousands of digits is refused before anybody shows it."""
    found = worker_line(f"concurrency: {number}")
    assert "expected a number of at most 400 digits" in found


def test_a_problem_is_one_line():
    """Line breaks in names and values do not break an error into lines."""
    text = f'{HEAD}  - name: "a\\nb"\n    kind: "c\\nd"\n    "e\\nf": 1\n    meta: 5\n'
    text += '  - {name: x, kind: queue.queue, driver: memory, "g\\nh": 1}\n'
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)
