"""Small shared helpers: input checks, randomness, devices, progress bars."""
