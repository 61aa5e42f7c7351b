"""Measurements: always in turn in one run, quoted as ratios."""
