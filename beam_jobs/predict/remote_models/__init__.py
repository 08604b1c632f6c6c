"""A model behind a server, as a function of pixels like that of a local model.

- `remote`: that function; read it first.
- `endpoints`: the address of the server, and its errors.
- `grpc_client`, `rest_client`: how it is asked.
"""
