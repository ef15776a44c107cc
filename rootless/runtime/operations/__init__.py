"""Typed steps that build the container's view of the system; each can describe and apply itself."""
