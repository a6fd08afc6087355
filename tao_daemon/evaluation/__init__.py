"""The gate: candidate against incumbent on fresh held-out prompts."""
