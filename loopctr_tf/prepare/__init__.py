"""Makes prepared folders from event logs: reading, histories, splits, fitting, writing."""
