"""One file for each schema version; never changed once released."""
