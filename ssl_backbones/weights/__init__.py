"""From a word in `train.init_checkpoint` to a file that can be loaded."""
