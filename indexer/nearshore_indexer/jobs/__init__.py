"""Runs an indexing run as a Kubernetes Indexed Job: one pod a shard, made from the template that the chart keeps."""
