"""The commands, one module each: arguments are parsed here, and nothing else happens."""
