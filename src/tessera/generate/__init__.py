"""Drawing: prompts in, pictures out. It never meets training."""
