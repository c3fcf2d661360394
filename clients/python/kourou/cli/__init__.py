"""The `kourou` command."""
