"""Pictures that a person should look at: kept by the service where its operator wants that, handed on as a YOLO set."""
