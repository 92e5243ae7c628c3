"""Statistics on ratings and scores: plain numbers in, frozen results out."""
