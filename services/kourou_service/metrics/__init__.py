"""Figures of a service for Prometheus: gathered on the event loop, rendered and served outside of it."""
