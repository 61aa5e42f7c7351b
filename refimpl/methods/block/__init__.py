"""How the blocks' models become one."""
