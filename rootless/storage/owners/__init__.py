"""Owners of files that a caller with one id cannot set: noted beside the files, and reported to those who ask."""
