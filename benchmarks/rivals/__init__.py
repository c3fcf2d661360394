"""Kourou beside what a user would take instead, on one machine in one go: `make bench`. See ../README.md."""
