"""The engines side by side, with nothing but a bare echo on them: `python -m benchmarks.echo`."""
