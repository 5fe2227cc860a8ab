"""What detections come to beyond one number: how sure it is, which errors, in which images."""
