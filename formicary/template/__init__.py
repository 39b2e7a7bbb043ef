"""The sandboxed template engine behind one small interface."""
