"""Runs on a Hugging Face hub: found, fetched, sent. What is fetched is data, and nothing in it is run."""
