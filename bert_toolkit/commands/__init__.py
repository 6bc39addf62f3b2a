"""The console commands beside the four stages."""
