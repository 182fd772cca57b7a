"""From a prepared folder to a run folder."""
