"""What a command says when it cannot do its work."""

from __future__ import annotations


class CommandError(Exception):
    """One sentence for the user; the command ends with exit code 1."""
