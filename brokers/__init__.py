"""Message brokers behind one contract; a leaf package that speaks bytes only."""
