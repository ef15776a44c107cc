"""A build cache that travels: as an image in a registry or a layout, to and from the store."""
