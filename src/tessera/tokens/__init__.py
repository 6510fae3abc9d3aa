"""Words <-> ints and pixels <-> ints."""
