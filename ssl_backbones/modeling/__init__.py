"""What Detectron2's builders lack: the choice of norm by rule, and what a freeze really froze."""
