"""The roles of a peer and what runs them."""
