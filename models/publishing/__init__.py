"""Publishing: put versions of a model in service, and take them out again.

- `store`: start here. Copies a model to a new version that is visible whole or not at
  all.
- `labels`: says which version is in service, and notes each change in the history.
- `rollback`: puts an earlier version in service again.
- `retention`: removes versions that nobody needs.

Input: a serving folder, on this machine or an object store. The Pusher and the verbs
`rollback`, `history` and `gc` call it. TensorFlow is imported for object stores only.
"""
