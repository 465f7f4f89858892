"""Rules that a grammar alone cannot hold, kept beside it: the answer is followed byte by byte through its schema.

relax.py     a normal schema in; what the backend is given and the rules that are kept here, out
rules.py     the rules of each node, as plain data
position.py  where an answer stands under them, and endings.py how the string or name read there may end
state.py     a backend's state under the rules: masks without what breaks them, and masks that are known already
"""
