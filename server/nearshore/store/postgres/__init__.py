"""The store of a cluster: a PostgreSQL that many processes share."""
