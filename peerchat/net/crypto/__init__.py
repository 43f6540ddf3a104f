"""The cryptography of the wire: primitives, Noise, secretstream."""
