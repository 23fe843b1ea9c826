"""What the service saw and answered, as numbers: a bounded SQLite file, older rows in Parquet. Never a picture."""
