"""The ant: accepts dispatches, runs them, reports their end. Holds no database connection."""
