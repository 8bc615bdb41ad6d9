"""Students: batches from an artifact, protocol, updates, by one process or several."""
