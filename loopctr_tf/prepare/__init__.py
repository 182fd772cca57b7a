"""From an event log to a prepared folder: reading, histories, splits, fitting, writing."""
