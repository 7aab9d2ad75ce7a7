"""Figures of a page: each is made only from the data read, and omitted if there is nothing to show."""
