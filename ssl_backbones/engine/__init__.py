"""The second flow: a config becomes a run folder with a trained and evaluated detector."""
