"""Tests against RabbitMQ, and the nodes, cluster and proxy that they use."""
