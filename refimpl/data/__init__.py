"""Training data: which examples are in which micro-batch, images, and scores of a classifier."""
