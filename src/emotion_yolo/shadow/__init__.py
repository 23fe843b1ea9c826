"""A candidate that scores pictures which the present model has answered, in a process of its own at low priority."""
