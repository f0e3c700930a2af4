"""One thin module a console command: parse, call one function, print."""
