"""Decides about searches: from a query to hits. Knows no protocol."""
