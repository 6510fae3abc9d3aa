"""From an encoder's output to codes and back: one file per quantizer, one protocol."""
