"""One user's store: its records, blobs, names, event log, locks, and what of it is garbage."""
