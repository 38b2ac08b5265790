"""Mistakes to plant in the kernel, for tests of the tests."""


def planted(kernel: str, right: str, wrong: str) -> str:
    """The kernel's text with one passage changed."""
    assert kernel.count(right) == 1, f"the kernel has {kernel.count(right)} of: {right}"
    return kernel.replace(right, wrong)
