"""One task, every tier, one table."""
