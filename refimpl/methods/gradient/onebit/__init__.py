"""One bit per value."""
