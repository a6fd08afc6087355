"""Signals and journal entries become metrics and log lines."""
