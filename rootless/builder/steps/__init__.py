"""What each instruction does: its cache key, and the job that a worker is given for it."""
