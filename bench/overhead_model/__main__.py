"""Prints docs/overhead_model.md."""

from bench.overhead_model.report import markdown

if __name__ == "__main__":
    print(markdown())
