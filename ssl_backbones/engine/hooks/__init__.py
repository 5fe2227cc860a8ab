"""One concern of a training run each."""
