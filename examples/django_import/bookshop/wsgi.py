"""The application of the server, which starts the consumers with its first request."""

import os

from django.core.wsgi import get_wsgi_application

from wippy_queue.contrib.django import embed

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")
application = embed(get_wsgi_application())
