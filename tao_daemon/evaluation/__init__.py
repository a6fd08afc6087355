"""The gate: a candidate against the incumbent on held-out prompts."""
