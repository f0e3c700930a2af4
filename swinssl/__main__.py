"""`python -m swinssl` is the program `swinssl`."""

from swinssl.cli.program import main

main()
