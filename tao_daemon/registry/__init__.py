"""Adapters, round artefacts and the journal."""
