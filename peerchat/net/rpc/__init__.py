"""The client and server of npm @hyperswarm/rpc."""
