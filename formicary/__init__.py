"""Formicary: an asyncio-native job orchestrator."""

__version__ = "0.1.0"
