"""dht-rpc: the Kademlia node under HyperDHT."""
