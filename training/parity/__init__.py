"""Numbers of the public trainers that our tests compare with: see docs/parity.md."""
