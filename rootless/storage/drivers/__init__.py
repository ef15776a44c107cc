"""How layers become a root filesystem: kernel overlayfs, fuse-overlayfs, plain copy."""
