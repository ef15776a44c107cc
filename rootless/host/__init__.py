"""What this host can do and whose ids we may use: probes with remedies, id maps, entering a user namespace."""
