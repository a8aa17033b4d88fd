"""A bookshop that imports CSV files in the background."""

import os
from pathlib import Path

from flask import Flask, abort, request

from wippy_queue.contrib.flask import WippyQueue

queues = WippyQueue()


def create_app(**settings: object) -> Flask:
    """Make the application; ``FLASK_…`` in the environment overrides each setting."""
    app = Flask(__name__)
    app.config.update(
        WIPPY_QUEUE_CONFIG="queues.yaml",  # beside this file
        WIPPY_QUEUE_EMBEDDED=True,  # serving processes import too; no worker is needed
        DATA=os.environ.get("BOOKSHOP_DATA", Path(app.root_path).parent / "data"),
        SECONDS_PER_ROW=0.02,  # what a row takes, so that there is progress to watch
        MAX_CONTENT_LENGTH=2_000_000,
    )
    app.config.from_prefixed_env()
    app.config.from_mapping(settings)
    queues.init_app(app)
    app.add_url_rule("/ready", view_func=queues.readiness_view)

    from . import database, views

    database.init_app(app)
    app.register_blueprint(views.pages)
    app.before_request(refuse_other_sites)
    return app


def refuse_other_sites() -> None:
    """Take forms from our own pages only; every browser says where a form comes from."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in (
        "same-origin",
        "none",
    ):
        abort(403)
