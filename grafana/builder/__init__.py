"""Builds the dashboards: `python -m grafana.builder` writes `grafana/dashboards/*.json`, which are committed."""
