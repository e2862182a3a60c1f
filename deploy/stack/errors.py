"""The one error of the stack.

Its text is a whole line for the user: it names the thing and says what was expected.
"""


class StackError(Exception):
    """The stack cannot do what was asked; the message is one clear line, ready to be printed."""
