"""How the gradients of a step become one."""
