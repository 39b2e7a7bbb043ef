"""Large bytes: artifacts of tasks, in a local folder or an object store."""
