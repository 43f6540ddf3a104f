"""Model files of this home: kept, pulled, given to others of the swarm."""
