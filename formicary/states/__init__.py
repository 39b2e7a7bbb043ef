"""Pure state machines: (status, event) -> (status, commands). No I/O, no clock, no asyncio, no own randomness."""
