"""Pictures of instances: boxes, masks and names drawn into images."""
