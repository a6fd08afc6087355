"""A past round played again from what it left, and compared with what was recorded."""
