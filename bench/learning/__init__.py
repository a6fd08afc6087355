"""The proof table: what label-free rounds gain, beside fine-tuning on labels and TRL, where a program knows the truth.

    python -m bench.learning --plan screen      # every column on one task
    python -m bench.learning --plan final       # base, labels, TRL and the winner on every task
    python -m bench.learning.report             # docs/results.md and its pictures, from the cells that are there

plan → cells, one JSON file each, written when the cell ends → report
"""
