"""Kafka records and import files become prompts."""
