"""Virtual time, seeded networks, scripted engines: for tests and simulations."""
