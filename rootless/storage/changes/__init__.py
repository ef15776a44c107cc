"""Finds what is different between two trees, and writes what a container has changed as a layer."""
