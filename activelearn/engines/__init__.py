"""The only callers of outside programs and models."""
