"""The one exception that means "the user can mend this": shown as its message alone, with exit code 1."""


class FaceattrError(Exception):
    """Says in one to three lines what is wrong, where (path, row, config key) and what would be right."""
