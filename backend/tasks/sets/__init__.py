"""Prompts of one's own: rows of a file, what is wrong with them, and a `Task` of the rest."""
