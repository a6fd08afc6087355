"""Stage 1: several completions per prompt from the serving model, and single answers for evaluation."""
