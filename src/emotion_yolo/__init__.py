"""Find every face in a picture and name its expression, in one pass of one YOLO network."""
