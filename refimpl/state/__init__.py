"""Everything a run is, as a tree of named values that know where their pieces live.

tree.py     names, placements; nesting, copies; cut and join by the layout
digest.py   the SHA-256 of a model, parameter by parameter
"""
