"""Students trained from an artifact, from batches to test accuracy; comparing students is `evaluation`'s job."""
