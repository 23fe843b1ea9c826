"""Draw made-up people: their anatomy, their painting, their light, and the pictures they are composed into."""
