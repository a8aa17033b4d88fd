"""What a server imports."""

import os

from django.core.wsgi import get_wsgi_application

from wippy_queue.contrib.django import embed

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = embed(get_wsgi_application())
