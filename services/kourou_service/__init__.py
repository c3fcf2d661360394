"""What the services share: the server engine, clock, settings, listeners, process life cycle."""
