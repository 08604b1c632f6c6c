"""Checks of published models, each in a fresh process as a server would load them."""
