"""The machines on an asyncio loop: sockets, UDX streams, encrypted connections."""
