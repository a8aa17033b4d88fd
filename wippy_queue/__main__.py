"""The console script ``wippy-queue``, and ``python -m wippy_queue``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """
    Run the command line on the arguments of the process.

    Returns:
        2 where the extra ``cli`` is not installed, which one line explains.

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
    finally:
        # From here on a signal ends the process at once, whatever delays its exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
