"""Other programs' interfaces over this house, so that their scripts run with only the import lines changed."""
