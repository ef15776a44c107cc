"""Images that are in the store: their names, lists, trees, removal, and single files read from them."""
