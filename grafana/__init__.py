"""Dashboards for Grafana, the typed builder that writes them, and pictures of them; the daemon never imports this."""
