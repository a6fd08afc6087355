"""TAO stage 1: several completions per prompt."""
