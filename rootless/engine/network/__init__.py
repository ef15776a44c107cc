"""Networks with names: the verbs over them."""
