"""Nearest neighbours across the sensors: an index of embeddings, and exact search in it."""
