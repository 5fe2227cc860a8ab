"""Where the masks of an evaluation were until 0.1: scripts name them here."""
