"""Runs beside each other: what differs, and whether the difference is more than the test images' chance."""
