"""Settings of methods, tasks and commands: pydantic models without torch."""
