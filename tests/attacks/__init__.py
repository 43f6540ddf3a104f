"""What an attacker tries on a private swarm, by real peers over loopback."""
