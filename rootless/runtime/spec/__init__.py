"""The values of the OCI runtime specification, read once from JSON, checked, and typed; nothing here acts on them."""
