"""Prompts wait here: near-duplicate clusters, splits, claims, offsets."""
