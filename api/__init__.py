"""The service: POST pictures, get boxes and emotions."""
