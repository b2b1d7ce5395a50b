"""The truth: documents, vectors and the change feed, behind the interface in `base`."""
