"""The service's pictures and answers, as numbers: a bounded SQLite file, older rows in Parquet. Never a picture."""
