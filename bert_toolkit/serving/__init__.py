"""Models over HTTP: `bert serve`, and a client for it."""
