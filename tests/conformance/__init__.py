"""A conformance suite for OCI runtimes that any runtime given by path can be put through, as an ordinary user."""
