"""The exit step in Triton."""
