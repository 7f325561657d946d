"""The verbs, one module each. Nothing stands here: `list` would shadow the builtin."""
