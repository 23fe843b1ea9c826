"""Pictures for review by a person: kept by the service if its operator turns that on, exported as a YOLO set."""
