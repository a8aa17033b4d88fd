"""The rows with RabbitMQ, for a broker that the environment variable AMQP_URL names."""
