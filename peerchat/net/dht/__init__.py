"""dht-rpc: the nodes, their routing tables, and requests between them."""
