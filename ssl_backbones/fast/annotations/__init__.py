"""COCO files read once, and their annotations packed into a few arrays that processes share."""
