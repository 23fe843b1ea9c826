"""A candidate model that scores pictures the present model has answered, in a separate process at low priority."""
