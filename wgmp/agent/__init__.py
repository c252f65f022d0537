"""The agent: a daemon that runs the networks of a settings file, each with its own gateway."""
