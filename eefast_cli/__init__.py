"""The command line: one file per command.

A package beside `eefast`, not a part of it: importing `eefast` loads torch and transformers, and
`eefast --help` shall not wait for them. Commands import what they run when they run.
"""
