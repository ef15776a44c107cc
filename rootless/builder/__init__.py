"""Building images: Dockerfile frontend (pure), build graph, cache and executor, all over the engine."""
