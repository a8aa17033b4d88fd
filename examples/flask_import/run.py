"""Serve the example: consumers run in this process, beside the web server."""

import argparse

from bookshop import create_app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    app = create_app()
    print(f"Open http://127.0.0.1:{port}/", flush=True)
    app.run(port=port)


if __name__ == "__main__":
    main()
