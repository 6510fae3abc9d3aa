"""All writing, replacing and deleting: files are written whole or not at all, and only our own are deleted."""
