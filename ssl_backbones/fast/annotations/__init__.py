"""COCO files read once, and their annotations packed into a few arrays that processes share.

Equal what Detectron2's `load_coco_json` and `get_detection_dataset_dicts` give, log and raise, with the same
types and order of keys. Left to these: key points, proposals and extra keys, files with faults, datasets that
are not registered as COCO instances, a cache folder that cannot be written to; all without msgspec.
"""
