"""What an image is and where images come from: references, manifests, registries, layouts, archives."""
