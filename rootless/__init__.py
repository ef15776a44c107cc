"""rootless: OCI containers for people who have no root. This module owns only the version."""

__version__ = "0.1.0"
