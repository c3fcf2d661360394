"""TLS of the services' listeners: the user's certificates, or self-made ones for development."""
