"""Finds products of a network that integers can take over, and what that costs."""
