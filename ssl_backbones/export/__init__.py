"""A trained detector as a file that runs where Detectron2 is not, compared before it is written."""
