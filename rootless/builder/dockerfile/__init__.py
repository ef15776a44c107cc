"""The text of a Dockerfile becomes typed instructions and warnings. Pure: no file is read."""
