"""Other people's checkpoints -> run folders, and back. Nothing in a foreign file is executed."""
