"""Who holds which part of the model states."""
