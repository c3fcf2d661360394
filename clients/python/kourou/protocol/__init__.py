"""The messages and methods of every protocol in proto/, in a descriptor pool of their own: see `make proto`."""
