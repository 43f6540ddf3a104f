"""peerchat: share language models with each other, peer to peer."""
