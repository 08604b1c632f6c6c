"""Published models and servers: checks as a server would load them, and its files.

- `check`: serve-check; `probe` is its child process that checks one model.
- `serve_config`: serve-config; `server_files` has the texts that it writes.
- `following`: these files follow the labels of the serving folder.
- `commands`: both verbs.
"""
