"""Stage 2: rewards in [0, 1] without labels, from verifiers."""
