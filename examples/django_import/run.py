"""Make the database and serve the example: consumers run in this process, beside the server."""

import argparse
import os

from django.core.management import execute_from_command_line


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")
    execute_from_command_line(["manage.py", "migrate", "--verbosity=0"])
    print(f"Open http://127.0.0.1:{port}/", flush=True)
    execute_from_command_line(["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"])


if __name__ == "__main__":
    main()
