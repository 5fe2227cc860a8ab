"""A trained detector on anybody's images and videos: pictures, and detections in COCO's format."""

# What a prediction leaves in its folder.
DETECTIONS = "coco_instances_results.json"
IMAGES = "images.json"
PICTURES = "pictures"
