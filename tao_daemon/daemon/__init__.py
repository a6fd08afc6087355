"""TAO stage 4: keep going. The machine decides, the supervisor journals, the executor does."""
