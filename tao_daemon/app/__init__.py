"""The composition root: a Config becomes parts, parts become processes. The only place that names backends."""
