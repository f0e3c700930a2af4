"""What this machine and this installation are, for `swinssl_doctor`: standard library only, every probe guarded."""
