"""Training: one loop, whatever is trained and whatever it runs on."""
