"""Whole networks with their loss: a config in, a module out."""
