"""Tables of chapters, made of what the code declares; run by itself it prints them all."""

from refimpl.methods.strategies import STRATEGIES, methods

HEAD = "| option | default | meaning |\n| --- | --- | --- |\n"


def option_row(one):
    """Return the row of an option: its flag, its default as a user writes it, its meaning."""
    names = {value: name for name, value in one.choices.items()}
    if one.kind is bool and not names:
        return f"| `{one.flag}` | {'on' if one.default else 'off'} | {one.meaning} |\n"
    default = names.get(one.default, one.default)
    shown = "" if default is None else default if isinstance(default, str) else f"{default:g}"
    return f"| `{one.flag} {one.metavar}` | {shown} | {one.meaning} |\n"


def option_table(method):
    """Return a method's options as the table that its chapter has."""
    return HEAD + "".join(map(option_row, method.options().values()))


def strategy_table():
    """Return the rows of strategies: lengths as a user gives them, what the name settles."""
    lines = ["| strategy | p | g | b | settled | in words |", "| --- " * 6 + "|"]
    for row in STRATEGIES.values():
        lengths = " | ".join(row.lengths.split())
        preset = ", ".join(f"`{key}` {value}" for key, value in row.preset.items())
        lines.append(f"| `{row.name}` | {lengths} | {preset} | {row.summary} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(strategy_table())
    for one in methods():
        print(f"{one.__name__}\n{option_table(one)}")
