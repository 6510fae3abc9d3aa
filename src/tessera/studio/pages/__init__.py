"""What stands on the pages. Each file is one page, and none knows another."""
