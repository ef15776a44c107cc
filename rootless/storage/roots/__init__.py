"""Opens the root file system of a container or an image from outside, to copy files or to run a shell there."""
