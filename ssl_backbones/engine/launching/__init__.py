"""Who takes part in a run, what starts and watches them, and what they must agree on."""
