"""The OCI command line: `rootless-oci create|start|state|kill|delete|run|exec|list|ps|features|spec`."""
