"""KUBERNETES: a pod for each attempt; ``executor.py`` composes the parts, ``manifest.py`` says what a pod is."""
