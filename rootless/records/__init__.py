"""The formats of a container's files as classes: readers and writers share attributes, not spellings of keys."""
