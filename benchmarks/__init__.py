"""What Kourou can do on this machine: `make bench`. How to run and read it stands in README.md."""
