"""The console script ``wippy-queue``, and ``python -m wippy_queue``."""

from __future__ import annotations

import os
import signal
import sys

from .commands.speak import say


def main() -> int:
    """
    Run the command line on the arguments of the process.

    Returns:
        2 where the extra ``cli`` is not installed, 1 where the help cannot be printed, which one
        line explains.

    Raises:
        SystemExit: In every other case, with the exit code.
    """
    try:
        from .cli import cli
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"wippy-queue needs {package}, which is not installed; "
            "run: pip install 'wippy-queue[cli]'\n"
        )
        return 2
    try:
        return int(cli.main(prog_name="wippy-queue"))
    except OSError as error:  # of --help, whose output nobody else looks after
        say(str(error))
        return 1
    finally:
        # From here on a signal ends the process at once, whatever delays its exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_output()


def _end_output() -> None:
    """End with 1 where standard output could not be written; the interpreter would with 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Where what is left goes, or the interpreter would try and fail to write it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
