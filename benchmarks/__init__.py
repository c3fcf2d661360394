"""Kourou on this machine: `make bench-quick`; beside others: `make bench`. How to read it stands in README.md."""
