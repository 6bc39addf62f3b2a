"""Models for servers and devices."""
