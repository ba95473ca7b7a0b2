"""Small real models that need no account and no hub: fetched from a package index and converted once."""
