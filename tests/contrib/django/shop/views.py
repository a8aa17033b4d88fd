"""What a request does."""

from django.db import transaction
from django.http import HttpResponse

from .models import Person
from .queue_handlers import sleep, welcome


def sign_up(request, name):
    with transaction.atomic():
        person = Person.objects.create(name=name)
        welcome.publish(person.pk)
    return HttpResponse(status=201)


def busy(request, seconds):
    sleep.publish(float(seconds))
    return HttpResponse(status=201)
