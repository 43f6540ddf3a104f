"""HyperDHT: announcing, finding and connecting to public keys."""
