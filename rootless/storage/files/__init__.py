"""Files of trees by descriptors: copied, archived, placed, looked at and removed."""
