"""What fills the axes of the grid, and the step that composes it."""
