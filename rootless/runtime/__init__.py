"""From an OCI bundle to a running process: the OCI runtime, as a library and as rootless-oci."""
