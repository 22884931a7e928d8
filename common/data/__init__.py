"""Where films come from: files on disk -> prepared arrays -> batches."""
