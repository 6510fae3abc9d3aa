"""Everything that is written, replaced and deleted goes through here: whole or not at all, and only what is our own."""
