"""Model definition files: one file is one model is one page."""
