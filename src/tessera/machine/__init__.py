"""What this computer is and can do: its device, its launcher, its fast paths."""
