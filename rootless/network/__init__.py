"""Connecting a network namespace to the host's network without privilege: pasta, slirp4netns, ports."""
