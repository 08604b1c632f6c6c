"""What all packages agree on: bands, records, label schemas, paths, manifests and settings. Imports no other package."""
