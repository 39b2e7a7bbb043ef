"""The queen, in the order data flows: api, manager, scheduler, supervisor, registry."""
