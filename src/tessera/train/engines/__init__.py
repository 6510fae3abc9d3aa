"""What a step runs on: one file per engine, one protocol."""
