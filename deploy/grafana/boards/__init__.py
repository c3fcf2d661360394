"""What the dashboards show, in Python. `make dashboards` makes the files in deploy/grafana/dashboards from it."""
