"""Files of trees, reached by descriptors: copied, archived, placed, looked at and removed."""
