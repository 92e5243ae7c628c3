"""How fast the app is, each figure beside a floor or a peer measured in the same minute: `make bench`."""
