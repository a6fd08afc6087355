"""Does the loop survive a bad scorer? A judge that can be fooled, noise, a constant, one that loves length.

    python -m bench.collapse                # rounds in a row on the real model, resumable
    python -m bench.collapse --simulate     # every scenario, seconds each, with a simulated model

Simulated is the language model alone, a table of probabilities; scorers, judge, advantages, losses, budgets, meters
and gate are the product's.
"""
