"""The addresses."""

from django.urls import path

from wippy_queue.contrib.django.views import ready

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("uploads/<int:upload_id>/", views.show, name="show"),
    path("uploads/<int:upload_id>/progress", views.progress),
    path("uploads/<int:upload_id>/continue", views.publish_missing),
    path("uploads/<int:upload_id>/replay", views.replay_all),
    path("uploads/<int:upload_id>/letters/<letter_id>/replay", views.replay),
    path("uploads/<int:upload_id>/letters/<letter_id>/correct", views.correct),
    path("ready", ready),
]
