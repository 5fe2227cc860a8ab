"""Where the mapper was until 0.1: configs and scripts name it here."""
