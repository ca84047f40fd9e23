"""Numbers of things in sentences: `1 attempt`, `2 processes`."""


def count(number: int, noun: str, shown: str = "") -> str:
    """Return the number with its noun, `1 attempt`, `2 attempts`, `2 processes`.

    `shown` is how the number is written where not as digits alone, as `1,024`.
    """
    more = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{shown or number} {noun}{'' if number == 1 else more}"
