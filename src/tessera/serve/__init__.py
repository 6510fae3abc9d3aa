"""Runs served over HTTP, as OpenAI's images interface has it. It meets `generate` and nothing of training."""
