"""The store as a whole: what it takes, whether it is sound, its repair, its pruning and its end."""
