"""Prints the longest files and functions of the package: a comparison with well-kept code, not a gate.

Code lines leave out blank lines, comments and docstrings. Branches count ifs, loops, handlers, `and`/`or`, conditional
expressions and comprehension conditions, nested functions included.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path
from statistics import median, quantiles

SOURCE = Path(__file__).parents[1] / "src" / "stratoscope"
TOP = 15
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text, tree):
    """Numbers of the lines that hold code."""
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, SCOPES) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines -= set(range(first.lineno, first.end_lineno + 1))
    return lines


def branches(node):
    """Places where a function may go one way or another."""
    count = 0
    for child in ast.walk(node):
        count += isinstance(child, BRANCHES)
        count += len(child.values) - 1 if isinstance(child, ast.BoolOp) else 0
        count += len(child.ifs) if isinstance(child, ast.comprehension) else 0
    return count


def measure(source=SOURCE):
    """Files as (code lines, all lines, name) and functions as (code lines, branches, name)."""
    files, functions = [], []
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = code_lines(text, tree)
        name = str(path.relative_to(source))
        files.append((len(lines), len(text.splitlines()), name))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = len(lines & set(range(node.lineno, node.end_lineno + 1)))
                functions.append((own, branches(node), f"{name}:{node.lineno} {node.name}"))
    return sorted(files, reverse=True), sorted(functions, reverse=True)


def spread(values):
    """Median, 90th percentile and maximum."""
    return f"median {median(values):.0f}, 90th percentile {quantiles(values, n=10)[-1]:.0f}, largest {max(values)}"


def main():
    """Print both lists."""
    files, functions = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
    files = [row for row in files if row[1]]
    print(f"{len(files)} files, {sum(f[0] for f in files)} code lines; {len(functions)} functions")
    print(f"lines a file:            {spread([f[1] for f in files])}")
    print(f"code lines a function:   {spread([f[0] for f in functions])}")
    print(f"branches a function:     {spread([f[1] for f in functions])}")
    print("\nlongest files (lines, code lines)")
    for code, lines, name in sorted(files, key=lambda f: -f[1])[:TOP]:
        print(f"{lines:6} {code:6}  {name}")
    print("\nlongest functions (code lines, branches)")
    for code, ways, name in functions[:TOP]:
        print(f"{code:6} {ways:6}  {name}")


if __name__ == "__main__":
    main()
