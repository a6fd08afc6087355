"""Tells the world outside what happens: the journal's entries become lifecycle events, on Kafka and to webhooks."""
