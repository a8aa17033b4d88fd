"""The URLs."""

from django.urls import path

from wippy_queue.contrib.django.views import ready

from . import views

urlpatterns = [
    path("ready/", ready),
    path("sign-up/<name>/", views.sign_up),
    path("busy/<seconds>/", views.busy),
]
