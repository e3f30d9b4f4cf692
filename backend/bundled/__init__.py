"""The bundled tiny models: how they were made, and how to check what they show."""
