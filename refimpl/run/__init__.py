"""One run, and runs side by side."""
