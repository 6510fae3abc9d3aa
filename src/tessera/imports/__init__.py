"""Checkpoints of other programs -> run folders, and back. No code in a foreign file is executed."""
