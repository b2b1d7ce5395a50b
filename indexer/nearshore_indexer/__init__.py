"""Turns files into documents of a collection: reads, splits, and writes them as fast as they can be embedded."""
