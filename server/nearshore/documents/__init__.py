"""Decides about documents and collections: validates requests, embeds, writes, reads. Knows no protocol."""
