"""Runs the jobs of the shards this queen owns: the hot loop."""
