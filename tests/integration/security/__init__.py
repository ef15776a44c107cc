"""Attacks: of a hostile image, a running container, another user of the host. Each failed before its remedy."""
