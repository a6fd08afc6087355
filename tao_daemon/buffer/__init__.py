"""Where prompts wait: split for training or for the gate, clustered, claimed by rounds."""
