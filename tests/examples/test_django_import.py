"""The example examples/django_import, by its own tests and as its users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from servers.server import ENVIRONMENT

from .web import EXAMPLES, check_import, running

pytest.importorskip("django")


def manage(*arguments: str, data: Path) -> str:
    """Run a command of the project, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "django_import" / "manage.py", *arguments],
        env={**ENVIRONMENT, "BOOKSHOP_DATA": str(data)},
        cwd=data,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_runs(tmp_path: Path) -> None:
    """One command serves it, and imports in the same process."""
    with running("django_import", tmp_path) as site:
        check_import(site)


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """They use ``drain`` in Django's ``TestCase``."""
    assert "Ran 5 tests" in manage("test", "bookshop", data=tmp_path)


def test_its_tables_are_those_of_its_models(tmp_path: Path) -> None:
    """The migration leaves nothing to be made, and the checks find nothing."""
    assert "No changes" in manage("makemigrations", "--check", "--dry-run", data=tmp_path)
    assert "no issues" in manage("check", data=tmp_path)
