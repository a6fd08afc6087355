"""A broker, a vLLM server and a small model on this machine, from PyPI packages only: for the demo and for tests."""
