"""Numbers and figures about trained networks."""
