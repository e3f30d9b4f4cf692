"""Tasks without code: what a TOML file says, checked, and a `Task` of it (no torch)."""
