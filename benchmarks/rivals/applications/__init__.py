"""The same Python application once for each system, each as its client library wants to be used.

They run in processes of their own, on the core that the servers are not on: `python -m benchmarks.rivals.applications`.
"""
