"""Pictures of a page: each is made of what was seen alone, and is not there where there is nothing to show."""
