"""The example examples/archive, run as its users run it."""

import contextlib
import hashlib
import lzma
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import wippy_queue

pytest.importorskip("rich")

EXAMPLE = Path(__file__).parents[1] / "examples" / "archive"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(wippy_queue.__file__).parents[1]),
    "PYTHONWARNINGS": "error",
    "COLUMNS": "100",
}
for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # to Rich they mean a terminal
    ENVIRONMENT.pop(variable, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four files, two of them with the same content."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "one.txt").write_text("the same")
    (folder / "below" / "two.txt").write_text("the same")
    (folder / "below" / "three.bin").write_bytes(bytes(range(256)) * 8192)
    (folder / "empty").touch()
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Where the archive will be."""
    return tmp_path / "archive"


def run(*arguments: object, exits: int = 0, example: Path = EXAMPLE) -> str:
    """Run the example to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, example / "archive.py", *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (exits, "")
    return done.stdout


@contextlib.contextmanager
def running(*arguments: object, example: Path = EXAMPLE) -> Iterator[subprocess.Popen[str]]:
    """Run the example, and see to it that it has ended afterwards."""
    with subprocess.Popen(
        [sys.executable, example / "archive.py", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_file(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until the running example has made a file."""
    deadline = time.monotonic() + 30
    while not any(folder.rglob(pattern)):
        assert time.monotonic() < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.005)


def objects(archive: Path) -> list[Path]:
    """Return the stored objects, each of which must be whole and have the right name."""
    stored = list((archive / "objects").rglob("*.*"))
    for path in stored:
        content = lzma.decompress(path.read_bytes())
        assert path.name == hashlib.sha256(content).hexdigest() + ".xz"
    return stored


def test_saves_every_file_and_equal_contents_once(folder: Path, archive: Path) -> None:
    """Four files with three contents become three objects, and the tables say so."""
    output = run(folder, "--to", archive)
    assert "4 done, 0 failed" in output
    assert "dedup ratio" in output
    assert ".bin" in output
    assert len(objects(archive)) == 3
    assert list((archive / "incoming").iterdir()) == []
    assert "4 done, 0 failed" in run(folder, "--to", archive, "--verify")


def test_shows_its_progress_on_a_terminal(
    folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets all counts, and a pipe does not."""
    assert "buffered" not in run(folder, "--to", archive)
    monkeypatch.setitem(ENVIRONMENT, "FORCE_COLOR", "1")
    output = run(folder, "--to", archive, "--verify")
    for count in ("failed", "buffered", "running", "waiting", "messages/s", "MB/s", "4 of 4"):
        assert count in output


def test_saves_only_what_changed_when_run_again(folder: Path, archive: Path) -> None:
    """An unchanged file is not published again, a changed or new one is."""
    run(folder, "--to", archive)
    assert "Saving 0 files that are new or changed, of 4" in run(folder, "--to", archive)
    (folder / "one.txt").write_text("another")
    (folder / "new.txt").write_text("new")
    assert "differs from objects" in run(folder, "--to", archive, "--verify", exits=1)
    assert "Saving 2 files that are new or changed, of 5" in run(folder, "--to", archive)
    assert len(objects(archive)) == 5
    run(folder, "--to", archive, "--verify")


def test_verify_finds_what_is_damaged_missing_or_not_saved(folder: Path, archive: Path) -> None:
    """Each difference is listed with its file and reason, and the exit code is 1."""
    run(folder, "--to", archive)
    by_size = sorted(objects(archive), key=lambda path: path.stat().st_size)
    by_size[0].unlink()
    by_size[2].write_bytes(by_size[2].read_bytes()[:-40])
    by_size[1].write_bytes(lzma.compress(b"the sane"))
    (folder / "new.txt").write_text("new")
    output = run(folder, "--to", archive, "--verify", exits=1)
    assert "0 done, 5 failed" in output
    for file, reason in (
        ("empty", f"{by_size[0].name} is missing in the archive"),
        ("below/three.bin", f"{by_size[2].name} in the archive is damaged"),
        ("one.txt", f"differs from objects/{by_size[1].parent.name}/{by_size[1].name}"),
        ("new.txt", "not in the archive"),
    ):
        assert reason in output.partition(f"{folder / file}\n")[2].splitlines()[0]

    assert "Saving 2 files that are new or changed, of 5" in run(folder, "--to", archive)
    assert "3 failed" in run(folder, "--to", archive, "--verify", exits=1)


def test_verify_needs_an_archive(folder: Path, archive: Path) -> None:
    """Comparing with an archive that was never made says so."""
    with running(folder, "--to", archive, "--verify") as process:
        assert "there is no archive in" in process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert not archive.exists()


def test_lists_the_broken_files_with_their_reasons(folder: Path, archive: Path) -> None:
    """The dangling link is tried three times, the large file is rejected, the others are saved."""
    output = run(folder, "--to", archive, "--with-broken", exits=1)
    assert "4 done, 2 failed" in output
    link, large = EXAMPLE / "broken" / "dangling-link", EXAMPLE / "broken" / "too-large.txt"
    after_link = output.partition(f"{link}\n")[2].splitlines()[0]
    assert "FileNotFoundError" in after_link
    assert "attempts: 3" in after_link
    after_large = output.partition(f"{large}\n")[2].splitlines()[0]
    assert "over the limit of 16,384 (attempts: 1)" in after_large
    assert (archive / "archive.log").read_text().count("Traceback") == 3
    run(folder, "--to", archive, "--verify")


@pytest.mark.skipif(sys.platform == "win32", reason="such names and files are of POSIX")
def test_saves_strange_names_and_lists_what_is_no_file(folder: Path, archive: Path) -> None:
    """A name need not be valid text; a FIFO is not opened, which would wait for ever."""
    for name in (b"line\nbreak", "ünï[red]".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("named")
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("named")
    except OSError:  # as on macOS
        (folder / "plain").write_text("named")
    (folder / "link").symlink_to("one.txt")
    os.mkfifo(folder / "fifo")
    output = run(folder, "--to", archive, exits=1)
    assert "8 done, 1 failed" in output
    assert f"{folder / 'fifo'}\n    not a regular file" in output
    assert len(objects(archive)) == 4


def test_leaves_out_the_archive_itself(folder: Path) -> None:
    """An archive inside the folder does not save itself."""
    run(folder, "--to", folder / "archive")
    assert "Saving 0 files that are new or changed, of 4" in run(folder, "--to", folder / "archive")


def test_refuses_a_second_run_on_the_same_archive(folder: Path, archive: Path) -> None:
    """Two runs would clear away each other's files."""
    archive.mkdir()
    with contextlib.closing(sqlite3.connect(archive / "lock")) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with running(folder, "--to", archive) as process:
            assert "another run is using" in process.communicate(timeout=60)[0]
    assert process.returncode == 1


@pytest.fixture
def large_folder(folder: Path) -> Path:
    """A folder with six more files."""
    for number in range(6):
        (folder / "below" / f"{number}.random").write_bytes(random.randbytes(1 << 20))
    return folder


def changed_example(tmp_path: Path, handler: str) -> Path:
    """Return a copy of the example with another handler for saving."""
    example = tmp_path / "example"
    shutil.copytree(EXAMPLE, example, symlinks=True)
    with (example / "handlers.py").open("a") as file:
        file.write(f"\n\n{handler}")
    return example


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A copy of the example that saves one file only once it is told to end."""
    return changed_example(
        tmp_path,
        "original = save\n\n\n"
        "def save(body):\n"
        "    if body['file'].endswith('5.random'):\n"
        "        (to_path(body['archive']) / 'waiting').touch()\n"
        "        current_context().wait(None)\n"
        "    original(body)\n",
    )


def test_completes_what_a_killed_run_began(
    large_folder: Path, archive: Path, unfinished: Path
) -> None:
    """After SIGKILL there are only whole objects, and the next run does the rest."""
    with running(large_folder, "--to", archive, example=unfinished) as process:
        wait_for_file(archive, "waiting", process)
        process.kill()
    assert len(objects(archive)) < 9
    output = run(large_folder, "--to", archive)
    assert "0 failed" in output
    assert "Saving 0 files" not in output
    assert len(objects(archive)) == 9
    assert list((archive / "incoming").iterdir()) == []
    assert "10 done, 0 failed" in run(large_folder, "--to", archive, "--verify")


def test_returns_what_it_holds_at_ctrl_c(
    large_folder: Path, archive: Path, unfinished: Path
) -> None:
    """After SIGINT it says what became of everything, leaves nothing behind, and goes on later."""
    with running(large_folder, "--to", archive, example=unfinished) as process:
        wait_for_file(archive, "waiting", process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert re.search(r"Stopped: \d+ finished, 0 still running, [1-9]\d* returned", output)
    assert "Traceback" not in output
    assert len(objects(archive)) < 9
    assert list((archive / "incoming").iterdir()) == []
    run(large_folder, "--to", archive)
    assert "10 done, 0 failed" in run(large_folder, "--to", archive, "--verify")


def test_names_what_still_runs_after_ctrl_c(folder: Path, archive: Path, tmp_path: Path) -> None:
    """A handler that does not end in time is listed with its file, and the process ends."""
    example = changed_example(
        tmp_path,
        "def save(body):\n"
        "    import threading\n"
        "    (to_path(body['archive']) / 'started').touch()\n"
        "    threading.Event().wait()\n",
    )
    settings = (example / "app.yaml").read_text()
    start = "auto_start: true"
    (example / "app.yaml").write_text(
        settings.replace(start, f"{start}\n      stop_timeout: 100ms")
    )
    (only,) = folder.glob("*.txt")
    with running(folder, "--to", archive, example=example) as process:
        wait_for_file(archive, "started", process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "Stopped: 0 finished, 4 still running, 0 returned" in output
    assert f"Still running: {only} for 0." in output


def test_default_folder_has_enough_files() -> None:
    """The standard library of this Python has more than 600 files, none of them cached code."""
    script = "import archive as a; print(*a.walk(a.STANDARD_LIBRARY, None, a.NOT_OF_THE_LIBRARY))"
    output = subprocess.check_output(
        [sys.executable, "-c", script], cwd=EXAMPLE, env=ENVIRONMENT, text=True
    )
    assert output.count(".py") > 600
    assert "__pycache__" not in output
    assert "site-packages" not in output
