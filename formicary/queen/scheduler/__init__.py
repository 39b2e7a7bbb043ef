"""Chooses which due job starts next; one leader in the colony."""
