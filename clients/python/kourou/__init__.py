"""Kourou, the client: send and receive messages of a cluster that speaks the RocketMQ 5 API."""
