"""Task executors behind one contract; a leaf package that speaks specs only."""
