"""What may be fed to a gateway from outside, and targets that feed it."""
