"""The only SQL: Postgres through asyncpg."""
