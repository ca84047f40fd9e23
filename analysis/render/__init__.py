"""Findings and tables as text for people and as JSON for programs. Pure: returns strings."""
