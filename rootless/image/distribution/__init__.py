"""Registries: names and mirrors, credentials, HTTP sessions, reading, uploading and referring (distribution-spec)."""
