"""The root filesystem of a container or an image, opened from outside of it: to copy files, or to run a shell there."""
