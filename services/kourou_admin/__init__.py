"""The admin service: the cluster as an operator sees it."""
