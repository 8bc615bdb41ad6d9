"""Students trained from an artifact, from batches to test accuracy; enters nothing that compares students."""
