"""TAO stage 2: rewards without labels."""
