"""What crosses the wire: tagged structs in the past tense, packed by ``codec``."""
