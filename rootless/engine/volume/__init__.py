"""Volumes: the verbs over them, and who uses them."""
