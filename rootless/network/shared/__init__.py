"""Networks that containers share: the one process that serves all of a user's, its links and names, and its clients."""
