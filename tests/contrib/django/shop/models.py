"""Rows that are written in the transactions of publishers, and read by handlers."""

from django.db import models


class Person(models.Model):
    name = models.CharField(max_length=100)
