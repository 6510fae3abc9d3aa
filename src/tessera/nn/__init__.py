"""Tensors in, tensors out. Nothing here knows files, ranks or prompts."""
