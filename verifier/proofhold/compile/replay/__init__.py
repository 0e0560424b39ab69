"""Making a replay lock: where to cut a model, what each segment is, and how far honest runs may differ."""
