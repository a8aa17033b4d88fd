"""Handlers, which autodiscovery finds."""

import os
import sys
import time
from collections.abc import Callable

from django.db import transaction

from wippy_queue import Tasks
from wippy_queue.contrib.django import publish

from .models import Person

tasks = Tasks("shop:tasks")
# No function entry of the files names them.
found = Tasks("shop:mails")

on_mail: Callable[[object], object] = print
"""What a mail does; tests put something of theirs here."""


def say(text):
    # In one call, so that it does not mix with what the server logs.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@tasks.task
def welcome(person_id: int) -> None:
    say(f"welcome {Person.objects.get(pk=person_id).name} in {os.getpid()}")


@tasks.task
def rename(person_id: int, names: list[str]) -> None:
    name, *others = names
    with transaction.atomic():
        Person.objects.filter(pk=person_id).update(name=name)
        if others:
            rename.publish(person_id, others)


@tasks.task
def sleep(seconds: float) -> None:
    say(f"sleeps in {os.getpid()}")
    time.sleep(seconds)


@found.task
def post() -> None:
    """Is published alone."""


def send(mail):
    on_mail(mail)


def thank(name):
    publish("shop:mails", {"to": name})
