"""Numbers that do not depend on the cluster: random draws, exact sums."""
