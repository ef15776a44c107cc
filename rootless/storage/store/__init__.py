"""One user's store: its records, blobs, names, event log and locks, and the collection of its garbage."""
