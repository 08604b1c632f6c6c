"""Checks of published models, each loaded in a new process as a server would load it.

`check` is the command's work; `probe` is the child process that checks one model. Only
`pipeline/__main__.py` imports this room.
"""
