"""What Kourou can do on this machine: `make bench-quick`; beside others: `make bench`. README.md says how to read it."""
