"""Layers as trees: unpacked, verified, made into archives again, by a worker inside the user namespace."""
