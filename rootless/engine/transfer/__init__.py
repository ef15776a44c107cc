"""Images on their way: between registries, archives, layouts and the store, and made from nothing."""
