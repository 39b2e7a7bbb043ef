"""The HTTP interface; sees only the manager."""
