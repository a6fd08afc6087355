"""Benchmarks: `make bench NAME=x` runs `bench/x.py`, prints a table and writes `bench/results/x.json`.

Speed is a ratio measured in one run against a named alternative, never a number alone.
"""
