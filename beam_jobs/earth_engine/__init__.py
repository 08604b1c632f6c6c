"""The Earth Engine client: the only room that imports `ee`.

- `connection`: which project, which server, whose credentials.
- `errors`: what went wrong with a request, and whether a retry can help.
- `requests`: pixel requests, their size and their limits. Needs no `ee`.
- `listing`: the scenes of a place and a time.
- `images`: the expression that Earth Engine computes for a request.
- `pixels`: the pixels of a request, checked to be complete.
- `exports`: batch tasks that write to a bucket.
- `client`: imports `ee` quietly.

Read `requests` first. `collect` and the commands may import this room. It imports
settings, contracts and `scenes`.
"""
