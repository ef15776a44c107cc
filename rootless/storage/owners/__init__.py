"""Owners that one id cannot give: noted beside the files, and told to those who ask."""
