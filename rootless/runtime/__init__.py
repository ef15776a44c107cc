"""From an OCI bundle to a running process: the OCI runtime, as a library and as rootless-oci."""

SPECIFICATION_VERSION = "1.3.0"
"""The version of the OCI runtime specification that this runtime implements; minor and patch of a configuration are not
judged."""
CONFIG_VERSION = "1.0.2"
"""The version that the configurations which we write declare. It is the newest that crun of Debian 12 (1.8) takes:
other runtimes shall run what is written here, some judge the minor version, and nothing newer is used."""
