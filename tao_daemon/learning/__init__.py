"""TAO stage 3: a LoRA adapter by reinforcement learning."""
